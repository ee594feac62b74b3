"""w8a16: one byte per weight, 16-bit activations.

    weight_packed      int8   [N, K]
    weight_scale       bf16   [N, 1]
    weight_zero_point  int16  [N, 1]   only with zero points
    bias               as the model stores it, or absent

Cost: 1 + 2/K bytes per weight (1 + 4/K with zero points).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vggt_quant.formats import check_tensors, compute_dtype
from vggt_quant.kernels import reference
from vggt_quant.rounding import SCALE_DTYPE, Grid


class PackedLinear(nn.Module):
    """A Linear over int8 weights with a scale (and zero point) per output channel."""

    format = "w8a16"
    bits = 8

    def __init__(self, weight_NK: Tensor, scale_N1: Tensor, zero_point_N1: Tensor | None, bias_N: Tensor | None):
        super().__init__()
        assert weight_NK.dtype == torch.int8
        assert scale_N1.shape == (weight_NK.shape[0], 1)
        self.out_features, self.in_features = weight_NK.shape
        self.register_buffer("weight_packed", weight_NK)
        self.register_buffer("weight_scale", scale_N1)
        self.register_buffer("weight_zero_point", zero_point_N1)
        self.register_buffer("bias", bias_N)

    @classmethod
    def from_integers(cls, integers_NK: Tensor, grid: Grid, bias_N: Tensor | None) -> "PackedLinear":
        """Pack integers of `rounding.to_integers`; one group per row."""
        if grid.bits != 8 or grid.group_size is not None:
            raise ValueError(f"w8a16 holds 8 bits per row, but got {grid.bits} bits in groups of {grid.group_size}.")
        if grid.zero_point_NG is None:
            return cls(integers_NK.to(torch.int8), grid.scale_NG, None, bias_N)
        return cls((integers_NK - 128).to(torch.int8), grid.scale_NG, grid.zero_point_NG - 128, bias_N)

    @classmethod
    def from_tensors(cls, fields: dict[str, Any], tensors: dict[str, Tensor]) -> "PackedLinear":
        """The inverse of `fields` and `tensors`.

        Raises:
            ValueError: Tensors that do not fit the fields.
        """
        rows, columns = fields["out_features"], fields["in_features"]
        expected = {
            "weight_packed": (torch.int8, (rows, columns)),
            "weight_scale": (SCALE_DTYPE, (rows, 1)),
            "weight_zero_point": (torch.int16, (rows, 1)),
            "bias": (None, (rows,)),
        }
        check_tensors(tensors, expected)
        return cls(*(tensors.get(name) for name in expected))

    def fields(self) -> dict[str, Any]:
        """Sizes, as JSON."""
        return {"format": self.format, "in_features": self.in_features, "out_features": self.out_features}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint."""
        return dict(self.named_buffers())

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return reference.dequantize_int8(self.weight_packed, self.weight_scale, self.weight_zero_point, torch.float32)

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
        weight_NK = reference.dequantize_int8(self.weight_packed, self.weight_scale, self.weight_zero_point, dtype)
        return reference.linear(x.to(dtype), weight_NK, self.bias)

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
        return f"{self.in_features} -> {self.out_features}, zero_points={zero}"
