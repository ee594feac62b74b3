"""The kernels compile for GPUs that this machine does not have; what they compute is tested elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""What a block may take by the table of compute capabilities in NVIDIA's CUDA C++ programming guide."""
EXPECTED = {"_produce", "_gemm", "_int4", "_int8", "_norm_rotate", "_resize", "_finish", "_dense_output"}


def compiled(capability, tmp_path):
    """Name, spilled bytes and bytes of shared memory of every kernel."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_kernels.py"
    run = subprocess.run(
        [sys.executable, str(script), str(capability)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return [line.split() for line in run.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("capability", "more"), [(80, set()), (89, set()), (90, {"_measure", "_combine", "_pack", "_attend"}), (120, set())]
)
def test_every_kernel_compiles_for_a_gpu_that_is_not_there_and_fits_into_its_memory(capability, more, tmp_path):
    kernels = compiled(capability, tmp_path)
    assert {name for name, _, _ in kernels} == EXPECTED | more
    # A kernel that takes more is refused at its launch.
    assert [kernel for kernel in kernels if int(kernel[2]) > SHARED_BYTES[capability]] == []
    # Spilled registers go through memory: right, but slow.
    if capability == 90:
        assert [kernel for kernel in kernels if kernel[1] != "0"] == []
