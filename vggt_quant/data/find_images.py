"""Find the photos in a folder.

`find_images` searches in this order and stops at the first folder that holds a usable photo:

1. the folder itself;
2. the photo folders of the layouts in `scenes`, such as ETH3D's `dslr_images_undistorted`;
3. all its subfolders, but not through links and not into names with "mask" or "depth".

A photo is a file that Pillow opens by its extension, in any case, and decodes to its end. Hidden files and folders
(`.x`, which covers macOS `._x`) and `__MACOSX` do not count. Photos are sorted by their path in that folder, part by
part, first ignoring case, then with it. A file that is named like a photo but is empty, damaged, or one channel of more
than 8 bits (a depth map) is skipped and reported with the reason. It is an error only if no photo is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vggt_quant.data import scenes
from vggt_quant.data.photo_files import DECODING_ERRORS, decode, explain, photo_extensions, show

NOT_PHOTO_FOLDERS = ("mask", "depth", "__macosx")
NAMED_PER_REASON = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImages:
    """What `find_images` found.

    Attributes:
        paths: usable photos, in order.
        folder: the place they lie in or below.
        skipped: (path, reason) of the files that are named like photos and are not usable, as far as the search went.
    """

    paths: tuple[Path, ...]
    folder: Path
    skipped: tuple[tuple[Path, str], ...] = ()


def find_images(folder: str | Path, *, max_images: int | None = None) -> FoundImages:
    """Find the photos of a scene.

    Args:
        folder: where to look; the module's docstring says in which order.
        max_images: the most usable photos to take; None takes all.

    Raises:
        ValueError: the folder is missing, a file or unreadable, `max_images` is below 1, or no photo is usable.
    """
    folder = Path(folder)
    _check_search(folder, max_images)
    looked: list[str] = []
    skipped: dict[Path, str] = {}
    for label, place, candidates in _places(folder):
        looked.append(label)
        # What an earlier place skipped also lies in the subfolders.
        paths = _take_usable((path for path in candidates if path not in skipped), max_images, skipped)
        if paths:
            return FoundImages(paths=paths, folder=place, skipped=tuple(skipped.items()))
    raise ValueError(
        f"No usable photo in {', '.join(looked[:-1])} or {looked[-1]}: {_list_skipped(skipped)}; "
        "give a folder that holds .jpg or .png photos."
    )


def _check_search(folder: Path, max_images: int | None) -> None:
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images is {max_images}; give 1 or more, or leave it out to take all photos.")
    if not folder.exists():
        raise ValueError(f"The photo folder {show(folder)} does not exist; check its path.")
    if not folder.is_dir():
        raise ValueError(f"{show(folder)} is a file; give the folder that holds the photos.")


def _places(folder: Path) -> Iterator[tuple[str, Path, Iterable[Path]]]:
    """(how to name it, the place, its candidates), lazily, in the order of the search."""
    layouts = [scenes.get(name) for name in scenes.names()]
    below = [folder / name for layout in layouts for name in layout.photo_folders]
    for place in dict.fromkeys((folder, *below)):
        if place.is_dir():
            yield show(place), place, _in_order([place / name for name in _file_names(place)], place)
    yield "the subfolders", folder, _in_order(_files_below(folder), folder)


def _file_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise ValueError(f"The folder {show(folder)} cannot be read ({error.strerror}); check its rights.") from error


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folder_names, file_names in os.walk(folder):
        folder_names[:] = [name for name in folder_names if not _is_passed_over(name)]
        yield from (Path(parent, name) for name in file_names if Path(parent, name).is_file())


def _is_passed_over(folder_name: str) -> bool:
    return folder_name.startswith(".") or any(part in folder_name.lower() for part in NOT_PHOTO_FOLDERS)


def _in_order(files: Iterable[Path], place: Path) -> list[Path]:
    extensions = photo_extensions()
    photos = (path for path in files if path.suffix.lower() in extensions and not path.name.startswith("."))

    def key(path: Path) -> tuple[list[str], Path]:
        return [part.casefold() for part in path.relative_to(place).parts], path

    return sorted(photos, key=key)


def _take_usable(candidates: Iterable[Path], max_images: int | None, skipped: dict[Path, str]) -> tuple[Path, ...]:
    usable: list[Path] = []
    for path in candidates:
        if len(usable) == max_images:
            break
        problem = _find_problem(path)
        if problem is None:
            usable.append(path)
        else:
            skipped[path] = problem
    return tuple(usable)


def _find_problem(path: Path) -> str | None:
    try:
        if path.stat().st_size == 0:
            return "empty (0 bytes)"
        mode = decode(path).mode
    except DECODING_ERRORS as error:
        return explain(path, error)
    return "one channel of more than 8 bits: a depth map, not a photo" if mode[0] in "IF" else None


def _list_skipped(skipped: dict[Path, str]) -> str:
    if not skipped:
        return "no file is named like a photo"
    names: dict[str, list[str]] = {}
    for path, reason in skipped.items():
        names.setdefault(reason, []).append(show(path.name))
    groups = [f"{_list_names(group)} ({reason})" for reason, group in names.items()]
    return f"skipped {len(skipped)}: {', '.join(groups)}"


def _list_names(names: list[str]) -> str:
    more = len(names) - NAMED_PER_REASON
    return ", ".join(names[:NAMED_PER_REASON]) + (f" and {more} more" if more > 0 else "")
