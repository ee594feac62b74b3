"""The uniform integer grid: weights to integers with a scale (and zero point) per row or per group of columns.

    w  ~  (q - zero_point) * scale        q in [0, 2^bits - 1] with zero points, else [-2^(bits-1), 2^(bits-1) - 1]

Scales are rounded to bfloat16 *before* the integers are chosen, so that the integers fit the scale that is stored;
bfloat16 and not float16, because the scale of a small weight underflows in float16. Without zero points the scale
carries the sign of the group's largest weight, which lands on the one extra negative step: all 2^bits steps are used
(int4, groups of 128, normal data: 19.7 dB against 18.6 dB of the usual -7..7; 41.3 dB at int8 either way).

Legend: N rows (outputs), K columns (inputs), G groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SCALE_DTYPE = torch.bfloat16


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where the integers of a weight lie.

    `scale_NG` is bfloat16; `zero_point_NG` is int16 or None (no zero points). One group is `group_size` columns wide
    (the last may be narrower); `group_size` None means that a whole row shares a scale (G = 1).
    """

    bits: int
    group_size: int | None
    scale_NG: Tensor
    zero_point_NG: Tensor | None


def _grouped(weight_NK: Tensor, group_size: int | None) -> Tensor:
    """[N, G, group] float32; a narrower last group is filled with its own last column, which changes no extreme."""
    size = group_size or weight_NK.shape[1]
    missing = -weight_NK.shape[1] % size
    if missing:
        weight_NK = torch.cat([weight_NK, weight_NK[:, -1:].expand(-1, missing)], dim=1)
    return weight_NK.float().reshape(len(weight_NK), weight_NK.shape[1] // size, size)


def _per_column(values_NG: Tensor, grid: Grid, columns: int) -> Tensor:
    if grid.group_size is None:
        return values_NG
    return values_NG.repeat_interleave(grid.group_size, dim=1)[:, :columns]


def fit(weight_NK: Tensor, *, bits: int, group_size: int | None = None, zero_points: bool = False) -> Grid:
    """The grid that spans each group from end to end (round to nearest, no search).

    Raises:
        ValueError: The weight is not a finite matrix, or bits or group size are out of range.
    """
    _check(weight_NK, bits, group_size)
    groups = _grouped(weight_NK, group_size)
    if not zero_points:
        largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
        return Grid(
            bits=bits, group_size=group_size, scale_NG=_storable(largest / -(2 ** (bits - 1))), zero_point_NG=None
        )
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale_NG = _storable((high - low) / (2**bits - 1))
    zero_point_NG = (-low / scale_NG.float()).round().clamp(0, 2**bits - 1).to(torch.int16)
    return Grid(bits=bits, group_size=group_size, scale_NG=scale_NG, zero_point_NG=zero_point_NG)


def to_integers(weight_NK: Tensor, grid: Grid) -> Tensor:
    """int16 [N, K]: the nearest integer of each weight on the grid."""
    columns = weight_NK.shape[1]
    integers = (weight_NK.float() / _per_column(grid.scale_NG.float(), grid, columns)).round_()
    if grid.zero_point_NG is None:
        return integers.clamp_(-(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1).to(torch.int16)
    integers += _per_column(grid.zero_point_NG, grid, columns)
    return integers.clamp_(0, 2**grid.bits - 1).to(torch.int16)


def to_weights(integers_NK: Tensor, grid: Grid) -> Tensor:
    """float32 [N, K]: what the integers stand for."""
    columns = integers_NK.shape[1]
    centred = integers_NK.float()
    if grid.zero_point_NG is not None:
        centred = centred - _per_column(grid.zero_point_NG, grid, columns)
    return centred * _per_column(grid.scale_NG.float(), grid, columns)


def _storable(scale: Tensor) -> Tensor:
    stored = scale.to(SCALE_DTYPE)
    return torch.where(stored == 0, torch.ones_like(stored), stored)


def _check(weight_NK: Tensor, bits: int, group_size: int | None) -> None:
    if weight_NK.ndim != 2 or weight_NK.numel() == 0:
        raise ValueError(
            f"A weight to quantize is a non-empty matrix, but this one has shape {tuple(weight_NK.shape)}."
        )
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; weights can be stored in 2 to 8 bits.")
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size is {group_size}; give the number of columns that share a scale, e.g. 128.")
    if not torch.isfinite(weight_NK).all():
        raise ValueError("A weight holds NaN or infinity; it cannot be quantized.")
