"""The device and software versions of a measurement, for every result. Only the function `provenance` imports torch."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from vggt_quant.results.schema import Provenance
from vggt_quant.runtime import gpus, machine
from vggt_quant.runtime.source_literals import BACKENDS, FORMATS, declared

OURS = "triton"
"""The library that our own kernels are written in."""


def provenance(device: str) -> Provenance:
    """Everything a reader needs to judge or repeat a figure that was measured on `device` in this process."""
    import torch

    is_gpu = device == "cuda"
    return Provenance(
        package_version=importlib.metadata.version("vggt-quant"),
        commit=commit(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        device=device,
        device_name=torch.cuda.get_device_name() if is_gpu else machine.cpu_name(),
        device_capability=".".join(map(str, torch.cuda.get_device_capability())) if is_gpu else None,
        cuda=torch.version.cuda if is_gpu else None,
        driver=gpus.driver_version() if is_gpu else None,
        cpu_threads=torch.get_num_threads(),
        created=now(),
    )


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Commit of the sources that run: VGGT_QUANT_COMMIT where an image or archive sets it, else the checkout's.

    `-dirty` is appended if files changed; None if it is unknown.
    """
    folder = Path(__file__).parents[2]
    if "VGGT_QUANT_COMMIT" in os.environ or not (folder / ".git").exists():
        return os.environ.get("VGGT_QUANT_COMMIT")
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def torch_version() -> str:
    """Version of the installed torch, without importing it."""
    return importlib.metadata.version("torch")


def kernel_libraries() -> dict[str, str]:
    """Versions of the installed libraries that bring kernels along, without importing them.

    Those are the `distribution`s that formats and attention backends declare, and `OURS`.
    """
    every = {OURS, *declared(FORMATS, "distribution").values(), *declared(BACKENDS, "distribution").values()}
    installed = {str(name) for name in every if name and any(importlib.metadata.distributions(name=str(name)))}
    return {name: importlib.metadata.version(name) for name in sorted(installed)}
