"""One GPU per job: a job leases a free one and makes only that one visible before torch is imported.

A lease is an advisory lock on a file per GPU. The system drops it when its last holder ends, however that ends, so a
killed job blocks nobody. The job's own process inherits the open file, so a GPU in use stays taken even when the parent
that leased it was killed.
"""

import contextlib
import fcntl
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

POLL_SECONDS = 0.2
log = logging.getLogger(__name__)


def visible_gpus() -> list[str]:
    """Identifiers of the GPUs this process may use: CUDA_VISIBLE_DEVICES if set, else all that the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return run.stdout.split()


@contextlib.contextmanager
def lease(folder: Path | None = None) -> Iterator[str]:
    """Hold one GPU for as long as the block runs; waits while all are taken.

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
    is_waiting = False
    while True:
        for gpu in gpus:
            with open(folder / f"{gpu.replace('/', '_')}.lock", "w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                os.set_inheritable(file.fileno(), True)
                yield gpu
                return
        if not is_waiting:
            log.info("waiting for a free GPU of %s", ", ".join(gpus))
            is_waiting = True
        time.sleep(POLL_SECONDS)
