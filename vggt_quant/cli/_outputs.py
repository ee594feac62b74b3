"""Check before the work that its product can be written where a flag says. Imports no torch."""

import tempfile
from pathlib import Path


def expect_output_folder(folder: Path, flag: str = "--output") -> None:
    """Refuse what cannot be, or become, a folder to write in; nothing is made.

    Raises:
        ValueError: It is a file, lies in one, or nothing can be written there.
    """
    place = _nearest(folder)
    if not place.is_dir():
        what = "a file" if place == folder.absolute() else f"in {place}, which is a file"
        raise ValueError(f"{flag} {folder} is {what}, but should be a folder; give the name of another.")
    _expect_writable(folder, place, flag)


def expect_output_file(file: Path, flag: str = "--output") -> None:
    """Refuse what cannot be, or become, a file; nothing is made, and a file that is there is kept.

    Raises:
        ValueError: It is a folder, lies in a file, or nothing can be written there.
    """
    if file.is_dir():
        raise ValueError(f"{flag} {file} is a folder, but should be a file; give a name in it: {file / 'NAME'}.")
    place = _nearest(file.absolute().parent)
    if not place.is_dir():
        raise ValueError(f"{flag} {file} is in {place}, which is a file; give a name in a folder.")
    _expect_writable(file, place, flag)


def _nearest(path: Path) -> Path:
    """The path itself if it is there, else the nearest folder (or file) above it that is."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())


def _expect_writable(path: Path, place: Path, flag: str) -> None:
    try:
        # The permissions alone do not tell: root has them all, and some disks take no files.
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        cure = "choose a folder that you can write to"
        raise ValueError(f"{flag} {path}: nothing can be written in {place} ({error.strerror}); {cure}.") from error
