"""Solid procedural textures in plain PyTorch: functions of places in space, so that no surface needs a map.

Every pattern is evaluated at every place and the wanted one is taken: no shape depends on data, and a compiler fuses all.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

PATTERNS = ("checker", "stripes", "noise", "marble", "cells", "bricks")
"""The order of `pattern_shares`."""

BRICK_LAYERS = 4
"""Layers of bricks in a cell."""


def pattern_shares(cells: Tensor) -> list[Tensor]:
    """The share [...] of the second colour at places [..., 3], in cells, for each of PATTERNS."""
    x, y, z = cells.unbind(dim=-1)
    smooth = noise(cells, octaves=3)
    layer = (z * BRICK_LAYERS).floor()
    along = 2 * (x + y) + 0.5 * (layer % 2)
    is_mortar = ((z * BRICK_LAYERS) % 1 < 0.15) | (along % 1 < 0.07)
    tone = _hash(torch.stack([along.floor(), torch.zeros_like(layer), layer], dim=-1).long(), 7)
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
    base = (cells - 0.5).floor()
    nearest, tone = torch.full_like(cells[..., 0], torch.inf), torch.zeros_like(cells[..., 0])
    for corner in itertools.product((0, 1), repeat=3):
        lattice = base + torch.tensor(corner, device=cells.device)
        index = lattice.long()
        seed = torch.stack([_hash(index, salt) for salt in (1, 2, 3)], dim=-1)
        distance = (lattice + 0.25 + 0.5 * seed - cells).square().sum(dim=-1)
        is_nearer = distance < nearest
        nearest = torch.where(is_nearer, distance, nearest)
        tone = torch.where(is_nearer, _hash(index, 4), tone)
    return tone


def noise(places: Tensor, *, octaves: int) -> Tensor:
    """Smooth random values [...] in [0, 1]: interpolated lattice noise, halved in size and strength repeatedly."""
    total = torch.zeros_like(places[..., 0])
    for octave in range(octaves):
        scaled = places * 2**octave
        cell = scaled.floor()
        x, y, z = (t * t * (3 - 2 * t) for t in (scaled - cell).unbind(dim=-1))
        index = cell.long()
        corners = [
            _hash(index + torch.tensor(corner, device=index.device), octave)
            for corner in itertools.product((0, 1), repeat=3)
        ]
        along_z = [torch.lerp(corners[i], corners[i + 1], z) for i in (0, 2, 4, 6)]
        along_y = [torch.lerp(along_z[i], along_z[i + 1], y) for i in (0, 2)]
        total = total + torch.lerp(along_y[0], along_y[1], x) * 0.5**octave
    return total / (2 - 0.5 ** (octaves - 1))


def _hash(index: Tensor, salt: int) -> Tensor:
    """A random value [...] in [0, 1) for each whole cell [..., 3]."""
    i, j, k = index.unbind(dim=-1)
    bits = (i * 374761393 + j * 668265263 + k * 2147483647 + salt * 974634321) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 13)) * 1274126177) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 16)) * 1103515245) & 0xFFFFFFFF
    return ((bits >> 8) & 0xFFFF).to(torch.float32) / 65536
