"""The target folder of a download: filled as FOLDER.incomplete, renamed when complete.

Its `fetched.json` records the source and the size of every file. A killed call leaves FOLDER.incomplete, and the next
call continues with it.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vggt_quant.data.fetch.download import FetchError
from vggt_quant.runtime import locks

MANIFEST = "fetched.json"


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that an earlier call completed; None if there is no such folder.

    Raises:
        FetchError: The folder was not made by this command, or files of it are missing or have another size.
    """
    if not folder.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{folder} is in the way: it was not completed by this command (it has no valid {MANIFEST}); move it "
            "away, or choose another --to."
        ) from error
    lacking = [name for name, size in files.items() if not _has(folder / name, size)]
    if lacking:
        raise FetchError(
            f"{folder} lacks {len(lacking)} of its {len(files)} files, or they have changed, such as {lacking[0]}; "
            "delete the folder and run the same command again."
        )
    return manifest


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Give FOLDER.incomplete, with what earlier calls left there, to one process at a time.

    Raises:
        FetchError: Another process is filling it.
    """
    work = folder.with_name(f"{folder.name}.incomplete")
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(work / "lock"))
        except BlockingIOError as error:
            raise FetchError(f"Another process is filling {work}; wait until it has ended.") from error
        yield work


def finish(content: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into `content`, make it the folder, and remove what is left of the workplace."""
    (content / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(content, folder)
    shutil.rmtree(folder.with_name(f"{folder.name}.incomplete"))


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
