"""The mapping between a photo and the image that the model sees.

VGGT's preprocessing resizes a photo to multiples of 14 pixels, by slightly different factors in x and y as the height
is rounded, and centres it: what sticks out is cropped, what is missing is padded. All sides are multiples of 14, so
that the middle never falls between two pixels.

Coordinates of a photo are continuous and start at the outer corner of its first pixel, so that its centre is at
(0.5, 0.5), as in COLMAP's files. Pixels of the image are integers with centres on them, as VGGT unprojects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant.data.images import measure


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A photo in an image; each size is (width, height) in pixels.

    Attributes:
        photo: the file's own size.
        resized: what the photo is resized to.
        image: what the model sees, with the resized photo in its middle.
    """

    photo: tuple[int, int]
    resized: tuple[int, int]
    image: tuple[int, int]

    def place_intrinsic(self, focal: tuple[float, float], center: tuple[float, float]) -> Tensor:
        """Turn focal lengths and principal point in the photo's coordinates into the intrinsic [3, 3] of the image."""
        (scale_x, left), (scale_y, top) = self._axes()
        entries = (
            (focal[0] * scale_x, 0.0, center[0] * scale_x - 0.5 + left),
            (0.0, focal[1] * scale_y, center[1] * scale_y - 0.5 + top),
            (0.0, 0.0, 1.0),
        )
        return torch.tensor(entries, dtype=torch.float64)

    def photo_coordinates(self) -> tuple[Tensor, Tensor]:
        """For each pixel of the image, the photo's coordinates and whether it shows the photo at all.

        Returns:
            [H, W, 2] float64 (x, y), and [H, W] bool, which is False in the padding.
        """
        axes = []
        for (scale, offset), length in zip(self._axes(), self.image, strict=True):
            axes.append((torch.arange(length, dtype=torch.float64) + 0.5 - offset) / scale)
        x, y = torch.meshgrid(*axes, indexing="xy")
        return torch.stack((x, y), dim=-1), (x > 0) & (x < self.photo[0]) & (y > 0) & (y < self.photo[1])

    def _axes(self) -> list[tuple[float, int]]:
        """Scale and offset in x, then in y."""
        sizes = zip(self.photo, self.resized, self.image, strict=True)
        return [(resized / photo, (image - resized) // 2) for photo, resized, image in sizes]


def place_photos(paths: Sequence[Path], image: tuple[int, int], *, mode: str, size: int) -> list[Placement]:
    """Where each photo lies in what `load_images(paths, mode, size=size)` makes of them, `image` (width, height)."""
    placements = []
    for path in paths:
        photo, resized = measure(path, mode, size=size)
        placements.append(Placement(photo=photo, resized=resized, image=image))
    return placements
