"""Where and with what a figure was measured; written into every result."""

import importlib.metadata
import platform
import subprocess

import torch

from vggt_quant.results.schema import Provenance
from vggt_quant.runtime import machine


def provenance(device: str) -> Provenance:
    """Everything a reader needs to judge or repeat a figure that was measured on `device` in this process."""
    capability = driver = None
    if device == "cuda":
        capability = ".".join(str(part) for part in torch.cuda.get_device_capability())
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    return Provenance(
        package_version=importlib.metadata.version("vggt-quant"),
        commit=machine.commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        device=device,
        device_name=torch.cuda.get_device_name() if device == "cuda" else machine.cpu_name(),
        device_capability=capability,
        cuda=torch.version.cuda if device == "cuda" else None,
        driver=driver,
        cpu_threads=torch.get_num_threads(),
        created=machine.now(),
    )
