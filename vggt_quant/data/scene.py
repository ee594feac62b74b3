"""Read a folder as a scene: photos as the model sees them, and the ground truth of the same pixels.

Each file in `scenes` defines a folder layout with ground truth, and how it is read.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vggt_quant.data import scenes
from vggt_quant.data.find_images import FoundImages, find_images
from vggt_quant.data.images import load_images
from vggt_quant.data.photo_files import photo_extensions
from vggt_quant.data.truth.frames import Truth
from vggt_quant.data.truth.placement import place_photos

logger = logging.getLogger(__name__)

UNFINISHED = ".incomplete"
"""How the folders are named that a killed command leaves behind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Photos of one place, as the model sees them.

    Attributes:
        name: the folder's.
        images: [S, 3, H, W] float32, what `images.load_images` makes of `paths`.
        paths: the photos, in order.
        skipped: (path, reason) of the files that are named like photos and are not usable.
        folder: where the photos lie.
        kind: the layout, one of `scenes.names()`, or "photos".
        truth: what is known; None for plain photos.
    """

    name: str
    images: Tensor
    paths: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]
    folder: Path
    kind: str
    truth: Truth | None


def load_scene(folder: str | Path, *, size: int = 518, mode: str = "crop", max_images: int | None = None) -> Scene:
    """Read a scene.

    Args:
        folder: plain photos, or one of the layouts in `scenes`.
        size: pixels, as for `images.load_images`.
        mode: "crop" or "pad", likewise.
        max_images: the most photos to take, from the first; None takes all.

    Raises:
        ValueError: no usable photo, an impossible size, or ground truth that does not fit; a photo without a pose is no
            error, and a warning names it.
    """
    folder = Path(folder)
    found = find_images(folder, max_images=max_images)
    images = load_images(found.paths, mode, size=size)
    kind, layout = _layout_of(found, folder)
    not_photos = layout.not_photos if layout else ()
    return Scene(
        name=folder.resolve().name,
        images=images,
        paths=found.paths,
        skipped=tuple((path, why) for path, why in found.skipped if not any(map(path.match, not_photos))),
        folder=found.folder,
        kind=kind,
        truth=_read_truth(layout, folder, found.paths, images, mode=mode, size=size),
    )


def find_scenes(folder: str | Path) -> list[Path]:
    """Find the folders to give to `load_scene`.

    Returns:
        The folder itself if it has a layout with ground truth; else its subfolders that have one, by name, and a
        warning names what else lies there; else the folder itself, as plain photos.

    Raises:
        ValueError: there is no usable photo.
    """
    folder = Path(folder)
    subfolders = _subfolders(folder)
    nested = [subfolder for subfolder in subfolders if scenes.detect(subfolder)]
    if nested and not scenes.detect(folder):
        others = [path.name for path in subfolders if path not in nested] + ["its photos"] * _holds_photos(folder)
        if others:
            logger.warning("%s holds scenes with ground truth; not used are %s.", folder, ", ".join(others))
        return nested
    find_images(folder, max_images=1)
    return [folder]


def _layout_of(found: FoundImages, folder: Path) -> tuple[str, scenes.Layout | None]:
    """The layout that `found` are the photos of, and its name."""
    if all(path.parent == found.folder for path in found.paths):
        for name, layout in scenes.detect(folder).items():
            if found.folder in [folder / place for place in layout.photo_folders]:
                return name, layout
    return scenes.PLAIN, None


def _read_truth(
    layout: scenes.Layout | None, folder: Path, paths: tuple[Path, ...], images: Tensor, *, mode: str, size: int
) -> Truth | None:
    if layout is None:
        return None
    height, width = images.shape[-2:]
    return layout.read_truth(folder, paths, place_photos(paths, (width, height), mode=mode, size=size))


def _holds_photos(folder: Path) -> bool:
    extensions = photo_extensions()
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return any(path.suffix.lower() in extensions for path in files)


def _subfolders(folder: Path) -> list[Path]:
    _, names, _ = next(os.walk(folder), ("", [], []))
    return [folder / name for name in sorted(names) if not name.startswith(".") and not name.endswith(UNFINISHED)]
