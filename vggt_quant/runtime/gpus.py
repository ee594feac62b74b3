"""The GPUs that this process may use, as `nvidia-smi` lists them, and the lease of one GPU per job.

A job leases a free GPU and makes only that one visible before torch is imported. A lease is a lock on a file per GPU
(`locks`), which the job inherits: a GPU in use stays taken even when the parent that leased it was killed.
"""

import contextlib
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vggt_quant.runtime import locks

POLL_SECONDS = 0.2
STATE = {
    "sm_clock_mhz": "clocks.sm",
    "sm_clock_max_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
}
"""What `gpu_state` says -> what the driver calls it."""
log = logging.getLogger(__name__)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process may use."""
    return [name for name, _ in _visible("index")]


def gpu_names() -> list[str]:
    """Names of the GPUs that this process may use, without importing torch; empty where there is none."""
    return [name for _, (name,) in _visible("name")]


def driver_version() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    return next((version for _, (version,) in _visible("driver_version")), None)


def gpu_state() -> dict[str, float]:
    """Clocks, temperature and power of the first GPU that this process may use; empty without a driver."""
    try:
        return dict(zip(STATE, map(float, _visible(*STATE.values())[0][1]), strict=True))
    except (ValueError, IndexError):
        return {}


def _visible(*fields: str) -> list[tuple[str, list[str]]]:
    """Each GPU that CUDA shows, with these fields of the driver's: all, or those that CUDA_VISIBLE_DEVICES names.

    As in CUDA, nothing counts from the first entry on that names no GPU, such as -1.
    """
    rows = _ask(*fields)
    entries = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = []
    for entry in map(str, range(len(rows))) if entries is None else map(str.strip, entries.split(",")):
        if entry.isdigit() and int(entry) < len(rows):
            chosen.append((entry, rows[int(entry)]))
        elif entry.startswith(("GPU-", "MIG-")) and rows:
            chosen.append((entry, rows[0]))  # a UUID: all GPUs of a machine that has them are of one kind
        else:
            break
    return chosen


def _ask(*fields: str) -> list[list[str]]:
    """What the driver says of each GPU; empty where there is no driver."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[value.strip() for value in line.split(",")] for line in run.stdout.splitlines() if line.strip()]


@contextlib.contextmanager
def lease(folder: Path | None = None) -> Iterator[str]:
    """Hold one GPU while the block runs; waits while all are taken.

    Args:
        folder: Where the lock files lie; one folder per machine, since the locks mean this machine's GPUs.

    Yields:
        The identifier to put into CUDA_VISIBLE_DEVICES.

    Raises:
        ValueError: No GPU is visible.
    """
    gpus = visible_gpus()
    if not gpus:
        raise ValueError("No GPU is visible to this process; use --device cpu, or check nvidia-smi.")
    folder = folder or Path(tempfile.gettempdir()) / f"vggt-quant-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        gpu = _take_one(gpus, folder, stack)
        if gpu is None:
            log.info("waiting for a free GPU of %s", ", ".join(gpus))
        while gpu is None:
            time.sleep(POLL_SECONDS)
            gpu = _take_one(gpus, folder, stack)
        yield gpu


def _take_one(gpus: list[str], folder: Path, stack: contextlib.ExitStack) -> str | None:
    """The first free GPU, held until the stack is closed."""
    for gpu in gpus:
        with contextlib.suppress(BlockingIOError):
            stack.enter_context(locks.hold(folder / f"{gpu.replace('/', '_')}.lock"))
            return gpu
    return None
