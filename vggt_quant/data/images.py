"""Photos become the tensor VGGT was trained on.

`load_images` equals VGGT's own preprocessing bit for bit: Pillow's bicubic filter on 8-bit values. Other libraries'
bicubic filters differ in several percent of the values. EXIF orientation is ignored there, and so here.

Shapes: N photos, H W pixels.

Source: `load_and_preprocess_images` of VGGT (Wang et al., CVPR 2025, arXiv:2503.11651).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vggt_quant.data.photo_files import DECODING_ERRORS, decode, explain, open_photo, show
from vggt_quant.model import VGGT

logger = logging.getLogger(__name__)

PATCH_SIZE = 14
SIZE = 518
MODES = ("crop", "pad")


def load_images(
    paths: str | Path | Sequence[str | Path],
    mode: str = "crop",
    *,
    size: int | None = None,
    model: VGGT | None = None,
) -> Tensor:
    """Preprocess photos as VGGT does.

    "crop" makes the width `size`, rounds the height to a multiple of 14 and keeps the middle `size` rows. "pad" makes
    the longer side `size`, rounds the other likewise, and fills up to a square with white. Small photos grow. Shapes
    that still differ are filled up with white to the largest, and a warning is logged. Transparency is blended with
    white in RGBA files and dropped elsewhere.

    Args:
        paths: one path or a sequence of them.
        mode: "crop" or "pad".
        size: pixels, a multiple of 14. None takes the model's, or 518 without a model.
        model: the model that the photos are for; the small trained one, "tiny", has a size of 112.

    Returns:
        [N, 3, H, W] float32 in [0, 1]; H and W are multiples of 14 and at most `size`.

    Raises:
        ValueError: no paths, a folder, an unknown mode, an impossible size, a `model` that is none, or a photo that
            cannot be decoded or is too thin.
    """
    size = _size(size, model)
    paths = [paths] if isinstance(paths, str | Path) else paths
    if folder := next((path for path in paths if Path(path).is_dir()), None):
        raise ValueError(f"{folder} is a folder; give its photos: load_images(find_images({str(folder)!r}).paths).")
    if len(paths) == 0:
        raise ValueError("At least 1 image is required, and the list of paths is empty.")
    if mode not in MODES:
        raise ValueError(f"Mode must be either 'crop' or 'pad', not {mode!r}.")
    if size < PATCH_SIZE or size % PATCH_SIZE:
        raise ValueError(f"The image size {size} must be a positive multiple of {PATCH_SIZE}.")
    return torch.stack(_pad_to_largest([_preprocess(Path(path), mode, size) for path in paths]))


def _size(size: int | None, model: VGGT | None) -> int:
    if model is None:
        return SIZE if size is None else size
    if not isinstance(model, VGGT):
        raise ValueError(f"model is {model!r} and no loaded model; give model=load({str(model)!r}) or size=...")
    if size is not None:
        raise ValueError(f"Both a size ({size}) and a model (of {model.config.img_size}) are given; leave one out.")
    return model.config.img_size


def measure(path: Path, mode: str = "crop", *, size: int = 518) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of a photo, and what `load_images` resizes it to before it is centred and cropped or padded."""
    with warnings.catch_warnings(action="ignore"), open_photo(path) as image:
        return image.size, _target_size(path, image.size, mode, size)


def _preprocess(path: Path, mode: str, size: int) -> Tensor:
    """One photo as [3, H, W]."""
    try:
        photo = _to_rgb(decode(path))
    except DECODING_ERRORS as error:
        raise ValueError(f"The photo {show(path)} cannot be used ({explain(path, error)}); leave it out.") from error
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
            f"The photo {show(path)} is too thin: {width} x {height} pixels become {target[0]} x {target[1]} "
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
