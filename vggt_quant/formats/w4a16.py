"""w4a16: two weights per byte in groups along the input dimension, 16-bit activations.

    weight_packed      uint8  [N, ceil(K / 2)]   column 2j in the low nibble, 2j + 1 in the high one
    weight_scale       bf16   [N, G]             G = ceil(K / group_size); the last group may be narrower
    weight_zero_point  uint8  [N, G]             only with zero points; without them every zero is 8
    bias               as the model stores it, or absent

Cost: 0.5 + 2/group_size bytes per weight (3/group_size with zero points).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vggt_quant.formats import check_tensors, compute_dtype
from vggt_quant.kernels import reference
from vggt_quant.rounding import SCALE_DTYPE, Grid


class PackedLinear(nn.Module):
    """A Linear over packed int4 weights with a scale (and zero point) per group of inputs."""

    format = "w4a16"
    bits = 4

    def __init__(
        self,
        packed_NB: Tensor,
        scale_NG: Tensor,
        zero_point_NG: Tensor | None,
        bias_N: Tensor | None,
        *,
        in_features: int,
        group_size: int,
    ):
        super().__init__()
        assert packed_NB.dtype == torch.uint8
        self.in_features, self.out_features, self.group_size = in_features, packed_NB.shape[0], group_size
        self.register_buffer("weight_packed", packed_NB)
        self.register_buffer("weight_scale", scale_NG)
        self.register_buffer("weight_zero_point", zero_point_NG)
        self.register_buffer("bias", bias_N)

    @classmethod
    def from_integers(cls, integers_NK: Tensor, grid: Grid, bias_N: Tensor | None) -> "PackedLinear":
        """Pack integers of `rounding.to_integers`."""
        if grid.bits != 4 or grid.group_size is None:
            raise ValueError(f"w4a16 holds 4 bits in groups, but got {grid.bits} bits in groups of {grid.group_size}.")
        signed = grid.zero_point_NG is None
        return cls(
            reference.pack_int4(integers_NK + 8 if signed else integers_NK),
            grid.scale_NG,
            None if signed else grid.zero_point_NG.to(torch.uint8),
            bias_N,
            in_features=integers_NK.shape[1],
            group_size=grid.group_size,
        )

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PackedLinear":
        """The inverse of `fields` and `tensors`.

        Raises:
            ValueError: Tensors that do not fit the fields.
        """
        rows, columns, group_size = fields["out_features"], fields["in_features"], fields["group_size"]
        groups = -(-columns // group_size)
        expected = {
            "weight_packed": (torch.uint8, (rows, -(-columns // 2))),
            "weight_scale": (SCALE_DTYPE, (rows, groups)),
            "weight_zero_point": (torch.uint8, (rows, groups)),
            "bias": (None, (rows,)),
        }
        check_tensors(tensors, expected)
        return cls(*(tensors.get(name) for name in expected), in_features=columns, group_size=group_size)

    def fields(self) -> dict[str, Any]:
        """Sizes and group size, as JSON."""
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return {"format": self.format, **sizes, "group_size": self.group_size}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint."""
        return dict(self.named_buffers())

    def _weight(self, dtype: torch.dtype) -> Tensor:
        return reference.dequantize_int4(
            self.weight_packed, self.weight_scale, self.weight_zero_point, self.in_features, self.group_size, dtype
        )

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return self._weight(torch.float32)

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.out_features * self.in_features

    def packed_bytes(self) -> int:
        """Bytes of weights, scales and zero points, without the bias."""
        return sum(tensor.nbytes for name, tensor in self.tensors().items() if name != "bias")

    @staticmethod
    def kernel(device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return "torch: dequantize, then matmul"

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N] in the type of `x` (autocast's under autocast)."""
        dtype = compute_dtype(x)
        return reference.linear(x.to(dtype), self._weight(dtype), self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        """Move with the model, but keep the scale's type: `model.half()` would round small scales away."""
        scale = self.weight_scale
        super()._apply(fn, recurse)
        if self.weight_scale.dtype != scale.dtype:
            self.weight_scale = scale.to(self.weight_scale.device)
        return self

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        zero = self.weight_zero_point is not None
        return f"{self.in_features} -> {self.out_features}, group_size={self.group_size}, zero_points={zero}"
