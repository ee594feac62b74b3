"""Scenes: which layout a folder has, its photos, and what is known of them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vggt_quant.data.find_images import ETH3D_FOLDERS, FoundImages, find_images
from vggt_quant.data.images import load_images
from vggt_quant.data.photo_files import photo_extensions
from vggt_quant.data.scenes import eth3d, seven_scenes
from vggt_quant.data.scenes.placement import place_photos
from vggt_quant.data.scenes.truth import Truth

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
        kind: "photos", "eth3d" or "7scenes": the layout.
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
        folder: plain photos, an ETH3D scene or a 7-Scenes sequence.
        size: pixels, as for `images.load_images`.
        mode: "crop" or "pad", likewise.
        max_images: take the first so many photos; None takes all.

    Raises:
        ValueError: no usable photo, an impossible size, or ground truth that does not fit; a photo without a pose is no
            error, and a warning names it.
    """
    folder = Path(folder)
    found = find_images(folder, max_images=max_images)
    images = load_images(found.paths, mode, size=size)
    kind = _kind_of(found, folder)
    return Scene(
        name=folder.resolve().name,
        images=images,
        paths=found.paths,
        skipped=tuple((path, why) for path, why in found.skipped if not _is_depth_map(path, kind)),
        folder=found.folder,
        kind=kind,
        truth=_read_truth(kind, folder, found.paths, images, mode=mode, size=size),
    )


def find_scenes(folder: str | Path) -> list[Path]:
    """Find the folders to give to `load_scene`.

    Returns:
        The folder itself if it has ETH3D's or 7-Scenes' layout; else its subfolders of these layouts, by name, and a
        warning names what else lies there; else the folder itself, as plain photos.

    Raises:
        ValueError: there is no usable photo.
    """
    folder = Path(folder)
    subfolders = _subfolders(folder)
    nested = [subfolder for subfolder in subfolders if _has_layout(subfolder)]
    if nested and not _has_layout(folder):
        others = [path.name for path in subfolders if path not in nested] + ["its photos"] * _holds_photos(folder)
        if others:
            logger.warning("%s holds scenes with ground truth; not used are %s.", folder, ", ".join(others))
        return nested
    find_images(folder, max_images=1)
    return [folder]


def _kind_of(found: FoundImages, folder: Path) -> str:
    if found.folder in [folder / name for name in ETH3D_FOLDERS]:
        return "eth3d"
    in_folder = all(path.parent == folder for path in found.paths)
    return "7scenes" if in_folder and any(path.match(seven_scenes.COLOR_FRAMES) for path in found.paths) else "photos"


def _is_depth_map(path: Path, kind: str) -> bool:
    return kind == "7scenes" and path.match(seven_scenes.DEPTH_FRAMES)


def _read_truth(
    kind: str, folder: Path, paths: tuple[Path, ...], images: Tensor, *, mode: str, size: int
) -> Truth | None:
    if kind == "photos":
        return None
    height, width = images.shape[-2:]
    placements = place_photos(paths, (width, height), mode=mode, size=size)
    return {"eth3d": eth3d, "7scenes": seven_scenes}[kind].read_truth(folder, paths, placements)


def _has_layout(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ETH3D_FOLDERS) or any(folder.glob(seven_scenes.COLOR_FRAMES))


def _holds_photos(folder: Path) -> bool:
    extensions = photo_extensions()
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return any(path.suffix.lower() in extensions for path in files)


def _subfolders(folder: Path) -> list[Path]:
    _, names, _ = next(os.walk(folder), ("", [], []))
    return [folder / name for name in sorted(names) if not name.startswith(".") and not name.endswith(UNFINISHED)]
