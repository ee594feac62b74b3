"""Advisory locks on files: one process holds a lock at a time, together with the children that inherit it.

The operating system releases a lock when its last holder ends, so a killed process never leaves one. Children inherit
the open file: children of a killed parent still hold its lock.
"""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a disk answers that does not support locks, as some network volumes."""


@contextlib.contextmanager
def hold(file: Path) -> Iterator[bool]:
    """Lock `file` (made if it is not there, its content kept) while the block runs.

    Yields:
        Whether it is locked; False on a disk that does not support locks.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be made.
    """
    with open(file, "a", encoding="utf-8") as opened:
        is_locked = _lock(opened.fileno())
        os.set_inheritable(opened.fileno(), True)
        yield is_locked


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def lock_of(folder: Path) -> Path:
    """The file that whoever works in a results folder holds."""
    return folder / ".vggt-quant.lock"


@contextlib.contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold a results folder, made if it is not there, for this run and the jobs that inherit it.

    A disk that does not support locks is good enough; a warning says so.

    Raises:
        ValueError: Another run is at work there, or the folder cannot be written to; also while the block runs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                is_locked = stack.enter_context(hold(lock_of(folder)))
            except BlockingIOError as error:
                cure = "wait for its end, or choose another --output"
                raise ValueError(f"Another run, or a job of a killed one, is at work in {folder}: {cure}.") from error
            if not is_locked:
                log.warning("%s does not support file locks; make sure that no other run uses it.", folder)
            yield
    except OSError as error:
        where, why = error.filename or folder, error.strerror or error
        cure = f"see that --output {folder} can be written to and has room, then give the same command again"
        raise ValueError(f"{where}: {why}; {cure}.") from error
