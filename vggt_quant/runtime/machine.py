"""The machine that a job runs on: its device, processor and memory. No torch: parsers and parent processes use it."""

import os
import platform
import time
from pathlib import Path

from vggt_quant.runtime import gpus


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is a GPU, else `cpu`.

    Raises:
        ValueError: Not one of auto, cpu, cuda; or cuda without a GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose auto, cpu or cuda.")
    if device == "auto":
        return "cuda" if gpus.gpu_names() else "cpu"
    if device == "cuda" and not gpus.gpu_names():
        raise ValueError("device is cuda, but nvidia-smi finds no GPU here; use --device cpu.")
    return device


def device_name(device: str) -> str:
    """Name of the GPU or processor that `cpu` or `cuda` means, without importing torch."""
    return gpus.gpu_names()[0] if device == "cuda" else cpu_name()


def cpu_name() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def busy_seconds() -> tuple[float, float]:
    """Processor seconds that the whole machine has worked since its start, and those of this process."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), time.process_time()
