"""A folder becomes a list of photos, and photos become the tensor VGGT was trained on.

`find_images` looks in this order and stops at the first place that holds a usable photo:

1. the folder itself;
2. its `dslr_images_undistorted`, then its `images/dslr_images_undistorted` (the two layouts of ETH3D);
3. all its subfolders, but not through links and not into names with "mask" or "depth".

A photo is a file that Pillow opens by its extension, in any case, and decodes to its end. Hidden files and folders
(`.x`, which covers macOS `._x`) and `__MACOSX` do not count. Photos come in the order of their path below that place,
compared part by part without regard to case, then with it. What is named like a photo but is empty, damaged, or one
channel of more than 8 bits (a depth map) is skipped and named with the reason; it stops nothing as long as one photo
is left.

`load_images` equals VGGT's own preprocessing bit for bit: Pillow's bicubic filter on 8-bit values. Other libraries'
bicubic filters differ in several percent of the values. EXIF orientation is ignored there, and so here.

Shapes: N photos, H W pixels.

Source: `load_and_preprocess_images` of VGGT (Wang et al., CVPR 2025, arXiv:2503.11651).
"""

from __future__ import annotations

import logging
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

logger = logging.getLogger(__name__)

PATCH_SIZE = 14
MODES = ("crop", "pad")
ETH3D_FOLDERS = ("dslr_images_undistorted", "images/dslr_images_undistorted")
NOT_PHOTO_FOLDERS = ("mask", "depth", "__macosx")
# Their plugins only recognise the format, or start Ghostscript (EPS), or need Windows (WMF).
NOT_PHOTO_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
# Phones write these. Pillow reads them only with a plugin; that is worth a word instead of "no photo found".
HEIC_EXTENSIONS = frozenset({".heic", ".heif"})
NAMED_PER_REASON = 3
# What Pillow's decoders were seen to raise on damaged files.
DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, RuntimeError, MemoryError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


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
        max_images: stop after so many usable photos; None takes all.

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


def describe(found: FoundImages) -> str:
    """One line for people: how many photos, where, the first one, and what was skipped."""
    count = len(found.paths)
    line = f"{count} photo{'s' * (count != 1)} in {_show(found.folder)}, first {_show(found.paths[0].name)}"
    return f"{line}; {_list_skipped(dict(found.skipped))}" if found.skipped else line


def load_images(paths: Sequence[str | Path], mode: str = "crop", *, size: int = 518) -> Tensor:
    """Preprocess photos as VGGT does.

    "crop" makes the width `size`, rounds the height to a multiple of 14 and keeps the middle `size` rows. "pad" makes
    the longer side `size`, rounds the other likewise, and fills up to a square with white. Small photos grow. Shapes
    that still differ are filled up with white to the largest, and a warning is logged. Transparency is blended with
    white in RGBA files and dropped elsewhere.

    Args:
        paths: one photo or more.
        mode: "crop" or "pad".
        size: pixels, a multiple of 14; the model's img_size.

    Returns:
        [N, 3, H, W] float32 in [0, 1]; H and W are multiples of 14 and at most `size`.

    Raises:
        ValueError: no paths, an unknown mode, an impossible size, or a photo that cannot be decoded or is too thin.
    """
    if len(paths) == 0:
        raise ValueError("At least 1 image is required, and the list of paths is empty.")
    if mode not in MODES:
        raise ValueError(f"Mode must be either 'crop' or 'pad', not {mode!r}.")
    if size < PATCH_SIZE or size % PATCH_SIZE:
        raise ValueError(f"The image size {size} must be a positive multiple of {PATCH_SIZE}.")
    return torch.stack(_pad_to_largest([_preprocess(Path(path), mode, size) for path in paths]))


def measure(path: Path, mode: str = "crop", *, size: int = 518) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of a photo, and what `load_images` resizes it to before it is centred and cropped or padded."""
    with warnings.catch_warnings(action="ignore"), _open(path) as image:
        return image.size, _target_size(path, image.size, mode, size)


def photo_extensions() -> frozenset[str]:
    """Lower-case extensions, with the dot, of the files that count as photos."""
    registered = Image.registered_extensions()
    return HEIC_EXTENSIONS | {extension for extension, name in registered.items() if name not in NOT_PHOTO_FORMATS}


def _check_search(folder: Path, max_images: int | None) -> None:
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images is {max_images}; give 1 or more, or leave it out to take all photos.")
    if not folder.exists():
        raise ValueError(f"The photo folder {_show(folder)} does not exist; check its path.")
    if not folder.is_dir():
        raise ValueError(f"{_show(folder)} is a file; give the folder that holds the photos.")


def _places(folder: Path) -> Iterator[tuple[str, Path, Iterable[Path]]]:
    """(how to name it, the place, its candidates), lazily, in the order of the search."""
    for place in (folder, *(folder / name for name in ETH3D_FOLDERS)):
        candidates = [place / name for name in _file_names(place)] if place.is_dir() else []
        yield _show(place), place, _in_order(candidates, place)
    yield "the subfolders", folder, _in_order(_files_below(folder), folder)


def _file_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise ValueError(f"The folder {_show(folder)} cannot be read ({error.strerror}); check its rights.") from error


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
        mode = _decode(path).mode
    except DECODING_ERRORS as error:
        return _explain(path, error)
    return "one channel of more than 8 bits: a depth map, not a photo" if mode[0] in "IF" else None


def _decode(path: Path) -> Image.Image:
    """Read every pixel, in the mode of the file."""
    # Pillow warns of odd metadata and of more than 89 megapixels; neither changes a pixel. It refuses twice as many.
    with warnings.catch_warnings(action="ignore"), _open(path) as image:
        image.load()
        return image.copy()


def _open(path: Path) -> Image.Image:
    # Loads every plugin. A file's content decides its format, so a forbidden one is forbidden under any name.
    Image.init()
    return Image.open(path, formats=[name for name in Image.OPEN if name not in NOT_PHOTO_FORMATS])


def _explain(path: Path, error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, Pillow's limit for one image"
    if isinstance(error, UnidentifiedImageError):
        heic = path.suffix.lower() in HEIC_EXTENSIONS
        return "HEIC, which Pillow cannot read: convert it to JPEG" if heic else "not an image that Pillow knows"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"damaged or unreadable: {' '.join(reason.split()) or type(error).__name__}"


def _list_skipped(skipped: dict[Path, str]) -> str:
    if not skipped:
        return "no file is named like a photo"
    names: dict[str, list[str]] = {}
    for path, reason in skipped.items():
        names.setdefault(reason, []).append(_show(path.name))
    groups = [f"{_list_names(group)} ({reason})" for reason, group in names.items()]
    return f"skipped {len(skipped)}: {', '.join(groups)}"


def _list_names(names: list[str]) -> str:
    more = len(names) - NAMED_PER_REASON
    return ", ".join(names[:NAMED_PER_REASON]) + (f" and {more} more" if more > 0 else "")


def _show(name: str | Path) -> str:
    """A name as it is, or quoted with escapes when it holds line breaks or bytes that are no text."""
    return str(name) if str(name).isprintable() else repr(str(name))


def _preprocess(path: Path, mode: str, size: int) -> Tensor:
    """One photo as [3, H, W]."""
    try:
        photo = _to_rgb(_decode(path))
    except DECODING_ERRORS as error:
        raise ValueError(f"The photo {_show(path)} cannot be used ({_explain(path, error)}); leave it out.") from error
    photo = photo.resize(_target_size(path, photo.size, mode, size), Image.Resampling.BICUBIC)
    image_3HW = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous().float() / 255
    if mode == "pad":
        return _pad_white(image_3HW, size, size)
    top = max(0, image_3HW.shape[1] - size) // 2
    return image_3HW[:, top : top + size]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # Transparency of palette images is dropped; Pillow would warn that it is lost.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _target_size(path: Path, pixels: tuple[int, int], mode: str, size: int) -> tuple[int, int]:
    """(width, height) to resize to. The order of the arithmetic and rounding half to even decide exact ties."""
    width, height = pixels
    if mode == "crop" or width >= height:
        target = (size, round(height * (size / width) / PATCH_SIZE) * PATCH_SIZE)
    else:
        target = (round(width * (size / height) / PATCH_SIZE) * PATCH_SIZE, size)
    if 0 in target:
        side = "height" if target[1] == 0 else "width"
        raise ValueError(
            f"The photo {_show(path)} is too thin: {width} x {height} pixels become {target[0]} x {target[1]} "
            f"as its {side} rounds to 0; crop it or leave it out."
        )
    return target


def _pad_to_largest(images_3HW: list[Tensor]) -> list[Tensor]:
    shapes = sorted({tuple(image.shape[1:]) for image in images_3HW})
    if len(shapes) == 1:
        return images_3HW
    listed = ", ".join(f"{height} x {width}" for height, width in shapes)
    logger.warning("The photos have different shapes (%s, height x width); white borders make them equal.", listed)
    largest = [max(sides) for sides in zip(*shapes, strict=True)]
    return [_pad_white(image, *largest) for image in images_3HW]


def _pad_white(image_3HW: Tensor, height: int, width: int) -> Tensor:
    """Centred; an odd row or column goes below or right."""
    rows, columns = height - image_3HW.shape[1], width - image_3HW.shape[2]
    left, top = columns // 2, rows // 2
    return F.pad(image_3HW, (left, columns - left, top, rows - top), value=1.0)
