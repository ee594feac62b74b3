"""The two layouts of stored integers, 8 and 4 bits, shared by formats that multiply them differently."""

from typing import Any, Self

import torch
from torch import Tensor

from vggt_quant.kernels import torch_reference
from vggt_quant.quantization.formats.base import Layout, PackedBase
from vggt_quant.quantization.grid import SCALE_DTYPE, Grid, fit, to_integers


class Integers(PackedBase):
    """A format of integers on a `grid.Grid`."""

    @classmethod
    def from_integers(cls, integers_NK: Tensor, grid: Grid, bias_N: Tensor | None) -> Self:
        """Pack integers of `grid.to_integers`."""
        raise NotImplementedError

    @classmethod
    def from_weight(cls, weight_NK: Tensor, bias_N: Tensor | None, **settings: Any) -> Self:
        """The nearest integers on a grid that spans each row or group from end to end; `settings` are `grid.fit`'s."""
        grid = fit(weight_NK, bits=cls.spec.bits, **settings)
        return cls.from_integers(to_integers(weight_NK, grid), grid, bias_N)


class Int8(Integers):
    """One byte per weight, a scale (and zero point) per output channel.

    weight_packed      int8   [N, K]
    weight_scale       bf16   [N, 1]
    weight_zero_point  int16  [N, 1]   only with zero points
    bias               as the model stores it, or absent

    Cost: 1 + 2/K bytes per weight (1 + 4/K with zero points).
    """

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name."""
        rows, columns = fields["out_features"], fields["in_features"]
        return {
            "weight_packed": (torch.int8, (rows, columns)),
            "weight_scale": (SCALE_DTYPE, (rows, 1)),
            "weight_zero_point": (torch.int16, (rows, 1)),
            "bias": (None, (rows,)),
        }

    @classmethod
    def from_integers(cls, integers_NK: Tensor, grid: Grid, bias_N: Tensor | None) -> Self:
        """Pack integers of `grid.to_integers`; one group per row."""
        if grid.bits != 8 or grid.group_size is not None:
            raise ValueError(
                f"{cls.format} holds 8 bits per row, but got {grid.bits} bits in groups of {grid.group_size}."
            )
        offset = 0 if grid.zero_point_NG is None else 128
        tensors = {
            "weight_packed": (integers_NK - offset).to(torch.int8),
            "weight_scale": grid.scale_NG,
            "weight_zero_point": None if grid.zero_point_NG is None else grid.zero_point_NG - offset,
            "bias": bias_N,
        }
        return cls(tensors, out_features=integers_NK.shape[0], in_features=integers_NK.shape[1])

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return torch_reference.dequantize_int8(
            self.weight_packed, self.weight_scale, self.weight_zero_point, torch.float32
        )


class Int4(Integers):
    """Two weights per byte, a scale (and zero point) per group of inputs.

    weight_packed      uint8  [N, ceil(K / 2)]   column 2j in the low nibble, 2j + 1 in the high one
    weight_scale       bf16   [N, G]             G = ceil(K / group_size); the last group may be narrower
    weight_zero_point  uint8  [N, G]             only with zero points; without them every zero is 8
    bias               as the model stores it, or absent

    Cost: 0.5 + 2/group_size bytes per weight (3/group_size with zero points).
    """

    settings = ("group_size",)
    group_size: int

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name."""
        rows, columns = fields["out_features"], fields["in_features"]
        groups = -(-columns // fields["group_size"])
        return {
            "weight_packed": (torch.uint8, (rows, -(-columns // 2))),
            "weight_scale": (SCALE_DTYPE, (rows, groups)),
            "weight_zero_point": (torch.uint8, (rows, groups)),
            "bias": (None, (rows,)),
        }

    @classmethod
    def from_integers(cls, integers_NK: Tensor, grid: Grid, bias_N: Tensor | None) -> Self:
        """Pack integers of `grid.to_integers`."""
        if grid.bits != 4 or grid.group_size is None:
            raise ValueError(
                f"{cls.format} holds 4 bits in groups, but got {grid.bits} bits in groups of {grid.group_size}."
            )
        zero_point, signed = grid.zero_point_NG, grid.zero_point_NG is None
        tensors = {
            "weight_packed": torch_reference.pack_int4(integers_NK + 8 if signed else integers_NK),
            "weight_scale": grid.scale_NG,
            "weight_zero_point": None if zero_point is None else zero_point.to(torch.uint8),
            "bias": bias_N,
        }
        rows, columns = integers_NK.shape
        return cls(tensors, out_features=rows, in_features=columns, group_size=grid.group_size)

    def stored(self) -> tuple[Tensor, Tensor, Tensor | None, int, int]:
        """What every unpacking wants: bytes, scales, zero points, columns, group size."""
        return self.weight_packed, self.weight_scale, self.weight_zero_point, self.in_features, self.group_size

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return torch_reference.dequantize_int4(*self.stored(), torch.float32)
