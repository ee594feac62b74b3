"""Maps of one value per pixel: read them, and take the nearest sample at given coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt_quant.data.photo_files import DECODING_ERRORS

TIE = 1e-6
"""Pixels. Centres that lie on a border go to the right and down, whatever the last digit of the arithmetic says."""


def read_raw_depth(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A file of float32, little endian, row by row, without a header, as a read-only [H, W] view of the file.

    Raises:
        ValueError: the file's length is not that of `size` (width, height).
    """
    width, height = size
    found, expected = path.stat().st_size, 4 * width * height
    if found != expected:
        raise ValueError(
            f"The depth map {path} has {found} bytes, and {width} x {height} pixels of float32 take {expected}; "
            "unpack the data set again."
        )
    return np.memmap(path, dtype="<f4", mode="r", shape=(height, width))


def read_channel(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An image file of one channel as integers [H, W].

    Raises:
        ValueError: it cannot be decoded, has other channels, or is not of `size` (width, height).
    """
    try:
        with Image.open(path) as image:
            values = np.array(image)
    except DECODING_ERRORS as error:
        raise ValueError(f"{path} cannot be decoded ({error}); unpack the data set again.") from error
    if values.shape != size[::-1]:
        raise ValueError(
            f"{path} has the shape {' x '.join(map(str, values.shape))}, and its photo is {size[1]} x {size[0]} "
            "(height x width) with one channel; unpack the data set again."
        )
    return values


def sample_nearest(values_HW: np.ndarray, coordinates: Tensor, valid: Tensor) -> Tensor:
    """The value of the pixel that each coordinate falls into.

    Args:
        values_HW: any numbers.
        coordinates: [..., 2] float64 (x, y) from the outer corner of the first pixel; NaN is outside.
        valid: [...] bool, where to look at all.

    Returns:
        [...] float64; NaN where not valid or outside.
    """
    columns, rows = torch.floor(coordinates.nan_to_num(nan=-1.0) + TIE).long().unbind(-1)
    height, width = values_HW.shape
    found = valid & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    samples = torch.full(found.shape, torch.nan, dtype=torch.float64)
    samples[found] = torch.from_numpy(values_HW[rows[found].numpy(), columns[found].numpy()].astype(np.float64))
    return samples
