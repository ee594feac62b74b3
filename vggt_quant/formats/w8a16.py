"""w8a16: one byte per weight, 16-bit activations.

    weight_packed      int8   [N, K]
    weight_scale       bf16   [N, 1]
    weight_zero_point  int16  [N, 1]   only with zero points
    bias               as the model stores it, or absent

Cost: 1 + 2/K bytes per weight (1 + 4/K with zero points).
"""

from typing import Any

import torch
from torch import Tensor, nn

from vggt_quant.formats import compute_dtype
from vggt_quant.kernels import reference
from vggt_quant.rounding import Grid


class PackedLinear(nn.Module):
    """A Linear over int8 weights with a scale (and zero point) per output channel."""

    format = "w8a16"
    bits = 8

    def __init__(self, weight_NK: Tensor, scale_N1: Tensor, zero_point_N1: Tensor | None, bias_N: Tensor | None):
        super().__init__()
        assert weight_NK.dtype == torch.int8
        assert scale_N1.shape == (weight_NK.shape[0], 1)
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
        """The inverse of `fields` and `tensors`."""
        shape = (fields["out_features"], fields["in_features"])
        layer = cls(
            tensors["weight_packed"], tensors["weight_scale"], tensors.get("weight_zero_point"), tensors.get("bias")
        )
        if tuple(layer.weight_packed.shape) != shape:
            raise ValueError(f"weight_packed has shape {tuple(layer.weight_packed.shape)}, but should have {shape}.")
        return layer

    def fields(self) -> dict[str, Any]:
        """Sizes, as JSON."""
        rows, columns = self.weight_packed.shape
        return {"format": self.format, "in_features": columns, "out_features": rows}

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors by their names in the checkpoint."""
        return dict(self.named_buffers())

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return reference.dequantize_int8(self.weight_packed, self.weight_scale, self.weight_zero_point, torch.float32)

    @property
    def num_weights(self) -> int:
        """N * K."""
        return self.weight_packed.numel()

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

    def extra_repr(self) -> str:
        """Sizes for `print(model)`."""
        zero = self.weight_zero_point is not None
        return f"{self.weight_packed.shape[1]} -> {self.weight_packed.shape[0]}, zero_points={zero}"
