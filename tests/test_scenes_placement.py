"""Cameras and coordinates follow a photo through VGGT's preprocessing, checked on what it makes of a dark blob."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from vggt_quant.data.images import load_images, measure
from vggt_quant.data.truth.placement import Placement, place_photos

FOCAL, CENTER = (210.0, 190.0), (70.0, 55.0)
SIDES = st.integers(30, 200)


def write_blob(path: Path, size: tuple[int, int], at: tuple[float, float], width: tuple[float, float]) -> Path:
    """A white photo with a dark round blob: brightness is linear, and padding is white too."""
    x, y = (np.arange(length) + 0.5 for length in size)
    dark = np.exp(-(((x - at[0]) / width[0]) ** 2)[None] / 2 - (((y - at[1]) / width[1]) ** 2)[:, None] / 2)
    Image.fromarray(np.round(255 * (1 - dark)).astype(np.uint8)).convert("RGB").save(path)
    return path


def blob_center(image_3HW: Tensor) -> Tensor:
    """Pixel (u, v) of the middle of the dark."""
    dark = 1 - image_3HW[0].double()
    v, u = (torch.arange(length, dtype=torch.float64) for length in dark.shape)
    return torch.stack(((dark.sum(0) * u).sum(), (dark.sum(1) * v).sum())) / dark.sum()


def widths(placement: Placement) -> tuple[float, float]:
    """Of a blob that is two pixels wide or more before and after the photo is resized."""
    x, y = (2 * max(1.0, old / new) for old, new in zip(placement.photo, placement.resized, strict=True))
    return x, y


def project(intrinsic: Tensor, at: tuple[float, float]) -> Tensor:
    """The pixel of the 3-D point that the photo's own camera sees at `at`."""
    point = torch.tensor([(at[0] - CENTER[0]) / FOCAL[0], (at[1] - CENTER[1]) / FOCAL[1], 1.0], dtype=torch.float64)
    return (intrinsic @ (3.7 * point) / 3.7)[:2]


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=2),
    mode=st.sampled_from(["crop", "pad"]),
    size=st.sampled_from([56, 112, 154]),
    where=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
@example(sizes=[(60, 200)], mode="crop", size=56, where=(0.5, 0.45))
@example(sizes=[(200, 133), (133, 200)], mode="crop", size=112, where=(0.4, 0.5))
@example(sizes=[(200, 133), (133, 200)], mode="pad", size=112, where=(0.3, 0.7))
def test_a_point_is_projected_to_the_pixel_that_shows_it(
    sizes: list[tuple[int, int]], mode: str, size: int, where: tuple[float, float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{index}.png") for index in range(len(sizes))]
        spots = [(photo[0] * where[0], photo[1] * where[1]) for photo in sizes]
        for path, photo, spot in zip(paths, sizes, spots, strict=True):
            Image.new("L", photo).save(path)
            scale = [old / new for old, new in zip(photo, measure(path, mode, size=size)[1], strict=True)]
            write_blob(path, photo, spot, (2 * max(1.0, scale[0]), 2 * max(1.0, scale[1])))
        images = load_images(paths, mode, size=size)
        placements = place_photos(paths, (images.shape[3], images.shape[2]), mode=mode, size=size)
    for image, placement, spot in zip(images, placements, spots, strict=True):
        expected = project(placement.place_intrinsic(FOCAL, CENTER), spot)
        reach = 4 * torch.tensor(widths(placement)) * torch.tensor(placement.resized) / torch.tensor(placement.photo)
        # The whole blob must be in the photo and in the image, or its middle is not where it was drawn.
        limits = torch.tensor([min(pair) for pair in zip(placement.resized, placement.image, strict=True)])
        margin = (torch.tensor(placement.image) - limits) / 2
        assume(((expected - reach > margin) & (expected + reach < margin + limits - 1)).all())
        # Eight bits and a bicubic filter move the middle by a few hundredths of a pixel.
        torch.testing.assert_close(blob_center(image), expected, rtol=0, atol=0.1)


@settings(max_examples=80, deadline=None)
@given(photo=st.tuples(SIDES, SIDES), resized=st.tuples(SIDES, SIDES), margins=st.tuples(*[st.integers(-20, 20)] * 2))
def test_coordinates_of_a_pixel_are_projected_to_that_pixel(
    photo: tuple[int, int], resized: tuple[int, int], margins: tuple[int, int]
) -> None:
    image = (max(resized[0] + 2 * margins[0], 1), max(resized[1] + 2 * margins[1], 1))
    assume((image[0] - resized[0]) % 2 == 0 == (image[1] - resized[1]) % 2)
    placement = Placement(photo=photo, resized=resized, image=image)
    coordinates, shown = placement.photo_coordinates()
    rays = (coordinates - torch.tensor(CENTER)) / torch.tensor(FOCAL)
    pixels = torch.nn.functional.pad(rays, (0, 1), value=1.0) @ placement.place_intrinsic(FOCAL, CENTER).T
    v, u = torch.meshgrid(*(torch.arange(length) for length in image[::-1]), indexing="ij")
    torch.testing.assert_close(pixels[..., :2], torch.stack((u, v), dim=-1).double(), rtol=0, atol=1e-9)
    assert shown.sum() == min(image[0], resized[0]) * min(image[1], resized[1])
