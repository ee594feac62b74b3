"""Solid procedural textures in plain PyTorch: functions of places in space, so that no surface needs a map.

Every pattern is evaluated at every place and the wanted one is taken: no shape depends on data, a compiler fuses all.
"""

from __future__ import annotations

import functools
import operator

import torch
from torch import Tensor

PATTERNS = ("checker", "stripes", "noise", "marble", "cells", "bricks")
"""The order of `pattern_shares`."""

BRICK_LAYERS = 4
"""Layers of bricks in a cell."""

LEVELS = 65536
"""Different values of a random number."""


def pattern_shares(cells: Tensor) -> list[Tensor]:
    """The share [...] of the second colour at places [..., 3], in cells, for each of PATTERNS."""
    x, y, z = (part.contiguous() for part in cells.unbind(dim=-1))
    smooth = noise(cells, octaves=3)
    layer = (z * BRICK_LAYERS).floor()
    along = 2 * (x + y) + 0.5 * (layer % 2)
    is_mortar = ((z * BRICK_LAYERS) % 1 < 0.15) | (along % 1 < 0.07)
    tone = _hash((along.floor().int(), torch.zeros_like(layer).int(), layer.int()), 7)
    return [
        (x.floor() + y.floor() + z.floor()) % 2,
        ((x + 0.7 * y + 0.4 * z) % 1 < 0.5).to(cells.dtype),
        ((smooth - 0.5) * 3 + 0.5).clamp(0, 1),
        0.5 + 0.5 * torch.sin(3 * (x + y) + 2 * z + 12 * smooth),
        _cell_tone(cells),
        torch.where(is_mortar, 1.0, 0.6 * tone),
    ]


def _cell_tone(cells: Tensor) -> Tensor:
    """A tone [...] for each cell of a Voronoi diagram around jittered lattice points."""
    places = [part.contiguous() for part in cells.unbind(dim=-1)]
    lattice = [(place - 0.5).floor() + corner for place, corner in zip(places, _corners(cells), strict=True)]
    x, y, z = (part.int() for part in lattice)
    index = (x, y, z)
    apart = (
        (point + 0.25 + 0.5 * _hash(index, salt) - place).square()
        for salt, (point, place) in enumerate(zip(lattice, places, strict=True), start=1)
    )
    distance = functools.reduce(operator.add, apart)
    # Distance in the high digits, tone in the low ones: one minimum finds the nearest point's tone.
    packed = (distance * LEVELS).long() * LEVELS + (_hash(index, 4) * LEVELS).long()
    return (packed.amin(dim=0) % LEVELS) / LEVELS


def noise(places: Tensor, *, octaves: int) -> Tensor:
    """Smooth random values [...] in [0, 1]: interpolated lattice noise, halved in size and strength repeatedly."""
    total = torch.zeros_like(places[..., 0])
    corners = _corners(places)
    for octave in range(octaves):
        weights: Tensor | float = 1.0
        index: list[Tensor] = []
        for place, corner in zip(places.unbind(dim=-1), corners, strict=True):
            scaled = place.contiguous() * 2**octave
            cell = scaled.floor()
            part = scaled - cell
            smooth = part * part * (3 - 2 * part)
            weights = weights * torch.where(corner > 0, smooth, 1 - smooth)
            index.append((cell + corner).int())
        total = total + (weights * _hash((index[0], index[1], index[2]), octave)).sum(dim=0) * 0.5**octave
    return total / (2 - 0.5 ** (octaves - 1))


def _corners(places: Tensor) -> list[Tensor]:
    """x, y and z of a unit cell's corners, each [8, 1, ...] to stand in front of places [..., 3]."""
    number = torch.arange(8, device=places.device).view(8, *[1] * (places.ndim - 1))
    return [(number // divisor % 2).to(places.dtype) for divisor in (4, 2, 1)]


def _hash(index: tuple[Tensor, Tensor, Tensor], salt: int) -> Tensor:
    """A random value [...] in [0, 1) for each whole cell; int32 arithmetic that wraps around."""
    i, j, k = index
    bits = i * 374761393 + j * 668265263 + k * 1440662683 + salt * 97463431
    bits = (bits ^ ((bits >> 13) & 0x7FFFF)) * 1274126177
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * 1103515245
    return ((bits >> 8) & 0xFFFF).to(torch.float32) / LEVELS
