"""torchao_int4: torchao's int4 weights in tiles ("tinygemm"), bfloat16 activations. Tensors: `_integers.Int4`.

What `Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d")` makes of a Linear, from integers that we rounded. A
weight stands for (q - 8) * scale + zero there, so a zero point z becomes (8 - z) * scale.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.quantization.formats._integers import Int4
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec

COLUMNS, ROWS = 1024, 8
"""The kernel's weights are filled up with zeros to multiples of these."""
INNER_TILES = 8


SPEC = FormatSpec(
    bits=4,
    grouped=True,
    group_sizes=(32, 64, 128, 256),
    zero_points=True,
    devices=("cuda",),
    examples=({"group_size": 128, "zero_points": True}, {"group_size": 32}),
    distribution="torchao",
    least_db=18.4,
)


class PackedLinear(Library, Int4):
    """A Linear over a torchao `Int4TilePackedTo4dTensor`."""

    format = "torchao_int4"
    spec = SPEC
    library = "torchao"
    product = "Int4TilePackedTo4dTensor"
    least_capability = (8, 0)
    rearranges = True

    def hand_over(self, device: torch.device) -> Any:
        """An `Int4TilePackedTo4dTensor` over a copy of the weights."""
        from torchao.quantization import Int4TilePackedTo4dTensor

        self.spec.check(self.format, self.group_size, zero_points=False)
        return Int4TilePackedTo4dTensor(
            torch.ops.aten._convert_weight_to_int4pack(self.nibbles().to(device), INNER_TILES),
            self.scales_and_zeros().to(device),
            block_size=[1, self.group_size],
            shape=torch.Size((self.out_features, self.in_features)),
        )

    def nibbles(self) -> Tensor:
        """uint8 [N, K / 2], filled up; here the even column is in the high half of a byte."""
        filled = _fill(self.weight_packed, ROWS, COLUMNS // 2)
        return (filled << 4) | (filled >> 4)

    def scales_and_zeros(self) -> Tensor:
        """bfloat16 [G, N, 2], filled up."""
        scale_NG = self.weight_scale.float()
        zero_NG = torch.full_like(scale_NG, 8) if self.weight_zero_point is None else self.weight_zero_point.float()
        both_NG2 = torch.stack((scale_NG, (8 - zero_NG) * scale_NG), dim=-1)
        filled = [_fill(part, ROWS, COLUMNS // self.group_size) for part in both_NG2.unbind(-1)]
        return torch.stack(filled, dim=-1).transpose(0, 1).to(torch.bfloat16).contiguous()

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product."""
        return functional.linear(x_MK, made, bias_N)


def _fill(matrix: Tensor, rows: int, columns: int) -> Tensor:
    return functional.pad(matrix, (0, -matrix.shape[1] % columns, 0, -matrix.shape[0] % rows))
