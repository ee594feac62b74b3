"""What the machine says of itself, with an `nvidia-smi` of our own where there is no GPU."""

import os
import subprocess
import sys

import pytest

from vggt_quant.runtime import gpus, machine


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An `nvidia-smi` that knows two GPUs."""
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'Large GPU'\necho 'Small GPU'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["Large GPU", "Small GPU"]),
        ("0", ["Large GPU"]),
        ("1, 0", ["Small GPU", "Large GPU"]),
        ("", []),
        ("-1", []),
        ("7", []),
        ("1,7,0", ["Small GPU"]),
        ("GPU-6f1c", ["Large GPU"]),
        ("NoDevFiles", []),
    ],
)
def test_only_gpus_that_cuda_would_show_are_named(two_gpus, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.gpu_names() == expected
    assert machine.resolve_device("auto") == ("cuda" if expected else "cpu")


def test_cuda_without_a_gpu_is_refused(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(ValueError, match="finds no GPU here; use --device cpu"):
        machine.resolve_device("cuda")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        machine.resolve_device("tpu")


def test_the_peak_is_never_below_what_is_resident():
    # In a fresh process: this one may have freed memory to hand out again, which is resident already.
    code = """
from vggt_quant.runtime import memory
now = memory.resident_bytes()
block = b"x" * 64_000_000
assert memory.resident_bytes() >= now + len(block)
assert memory.peak_resident_bytes() >= now + len(block)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "expandable_segments:True None"), ({"PYTORCH_CUDA_ALLOC_CONF": "a:b"}, "None a:b")]
)
def test_every_command_lets_the_segments_of_the_gpus_allocator_grow_unless_it_is_set_up(given, expected):
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    code = f"import os; from vggt_quant.cli.main import main; main(['speed']); print(*map(os.environ.get, {names}))"
    clean = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | given)
    assert run.stdout.splitlines()[-1] == expected, run.stderr


def test_freed_memory_is_kept_for_the_next_pass():
    """In a process of its own, since it cannot be taken back."""
    code = (
        "import torch; from vggt_quant.runtime import memory; assert memory.keep_freed_memory(); "
        "before = memory.resident_bytes(); held = [torch.ones(2**20) for _ in range(20)]; del held; "
        "assert memory.resident_bytes() - before > 7e7, memory.resident_bytes() - before"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
