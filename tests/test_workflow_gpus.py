"""Several GPUs in one machine: the workflow runs as many variants at once, and no two of them share a GPU."""

from itertools import combinations, pairwise

import pytest
from processes import install_driver
from workflow_project import Project, said

pytestmark = pytest.mark.workflow

# On a machine whose driver lists two GPUs that are not there: the method says that it works on the CPU, and the job
# leases its GPU as ever. Each job waits for a second one to be at work, so that the test knows that two were at once.
HOLDS = '''"""A method of the tests."""

import os
import time
from pathlib import Path
from typing import ClassVar

from vggt_quant.quantization.methods import MethodConfig


class Config(MethodConfig, frozen=True, kw_only=True):
    """Nothing to set."""

    devices: ClassVar[tuple[str, ...]] = ("cpu",)


def quantize(model, layers, config, replace, calibration):
    """Write down when this job held which GPU."""
    folder, started = Path(os.environ["HELD"]), time.monotonic()
    (folder / f"{os.getpid()}.started").touch()
    while len(list(folder.glob("*.started"))) < 2 and time.monotonic() < started + 60:
        time.sleep(0.05)
    time.sleep(0.5)
    held = f"{os.environ['CUDA_VISIBLE_DEVICES']} {started} {time.monotonic()}"
    (folder / f"{os.getpid()}.held").write_text(held)
'''
# Three settings: of two variants with the same one the second takes the first's checkpoint.
VARIANTS = {
    "first": {"method": "holds", "dtype": "float32"},
    "second": {"method": "holds", "dtype": "bfloat16"},
    "third": {"method": "holds", "dtype": "float16"},
}


def test_two_gpus_work_on_two_variants_at_once_and_no_variants_share_one(tmp_path):
    """Snakemake may start three jobs here, so that it is the lease that makes the third one wait."""
    project = Project(tmp_path / "project", VARIANTS, device="cuda")
    (project.root / "vggt_quant" / "quantization" / "methods" / "holds.py").write_text(HOLDS)
    held, locks = tmp_path / "held", tmp_path / "locks"
    held.mkdir()
    locks.mkdir()
    process = project.snakemake(
        *("--cores", "3", "--resources", "gpu=3", "timing=1", "--", *(f"quantize_{name}" for name in VARIANTS)),
        PATH=install_driver(tmp_path / "bin"),
        HELD=str(held),
        TMPDIR=str(locks),
    )
    assert process.returncode == 0, said(process)
    lines = [file.read_text().split() for file in held.glob("*.held")]
    times = {gpu: sorted((float(start), float(end)) for name, start, end in lines if name == gpu) for gpu in "01"}
    assert sorted(map(len, times.values())) == [1, 2], "three jobs on two GPUs"
    for intervals in times.values():
        assert all(before[1] <= after[0] for before, after in pairwise(intervals)), "two jobs shared a GPU"
    every = [interval for intervals in times.values() for interval in intervals]
    assert any(a[0] < b[1] and b[0] < a[1] for a, b in combinations(every, 2)), "no two jobs ran at once"
