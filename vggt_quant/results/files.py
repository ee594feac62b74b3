"""Files that are written whole or not at all. Standard library only."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED: set[Path] = set()
"""Files that are being written under temporary names."""


@contextlib.contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Give an empty file in the folder of `path` to fill; when the block ends, it is flushed and gets that name.

    If the block raises, what stood under the name is still there, and nothing else is left behind.

    Raises:
        OSError: The folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    UNFINISHED.add(Path(temporary))
    try:
        yield Path(temporary)
        os.fsync(handle)  # or the name could outlive a crash of the machine and the bytes not
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        os.close(handle)
        Path(temporary).unlink(missing_ok=True)
        UNFINISHED.discard(Path(temporary))


def write_text(text: str, path: Path | str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: Path | str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
