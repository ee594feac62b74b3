"""fp8: float8 e4m3 weights with a scale per output channel, float8 activations with a scale per token.

    weight_packed  float8_e4m3fn  [N, K]
    weight_scale   fp32           [N]
    bias           as the model stores it, or absent

Cost: 1 + 4/K bytes per weight. e4m3 has 4 exponent and 3 fraction bits, largest value 448 (Micikevicius et al. 2022,
arXiv:2209.05433). The product runs on matrix units at twice the rate of bfloat16, on Ada, Hopper and newer GPUs. Other
devices are not supported.
"""

from typing import Any, Self

import torch
from torch import Tensor

from vggt_quant.kernels import products
from vggt_quant.kernels.operands import Kind
from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.base import Layout, PackedBase

LARGEST = 448.0
SMALLEST_SCALE = 1e-30
"""Of a row of zeros."""
SPEC = FormatSpec(bits=8, integers=False, devices=("cuda",), least_db=28)


class PackedLinear(PackedBase):
    """A Linear in float8."""

    format = "fp8"
    spec = SPEC

    @property
    def operand(self) -> Kind:
        """Activations in float8, too."""
        return "float8"

    @classmethod
    def layout(cls, fields: dict[str, Any]) -> Layout:
        """Tensors by name."""
        rows, columns = fields["out_features"], fields["in_features"]
        return {
            "weight_packed": (torch.float8_e4m3fn, (rows, columns)),
            "weight_scale": (torch.float32, (rows,)),
            "bias": (None, (rows,)),
        }

    @classmethod
    def from_values(cls, values_NK: Tensor, scale_N: Tensor, bias_N: Tensor | None) -> Self:
        """Pack float8 values and their scales."""
        rows, columns = values_NK.shape
        tensors = {"weight_packed": values_NK, "weight_scale": scale_N, "bias": bias_N}
        return cls(tensors, out_features=rows, in_features=columns)

    @classmethod
    def from_weight(cls, weight_NK: Tensor, bias_N: Tensor | None, **settings: Any) -> Self:
        """The nearest e4m3 values under a scale that lets each row end at 448 (PyTorch's "rowwise" recipe)."""
        weight_NK = weight_NK.float()
        # A GPU divides by a number as it multiplies by the inverse, a CPU does not: so that both choose the same scale.
        scale_N = (weight_NK.abs().amax(1) * (1 / LARGEST)).clamp(min=SMALLEST_SCALE)
        return cls.from_values((weight_NK / scale_N[:, None]).to(torch.float8_e4m3fn), scale_N, bias_N)

    def dequantized(self) -> Tensor:
        """float32 [N, K]."""
        return self.weight_packed.float() * self.weight_scale[:, None]

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device` cannot run it, or None."""
        if device.type == "cuda" and not products.has_float8(device):
            return f"fp8 is not supported on {torch.cuda.get_device_name(device)}; it needs compute capability 8.9"
        return super().unsupported(device)

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return "torch._scaled_mm by row" if products.has_float8(device) else "reference"

    def __getstate__(self) -> dict[str, Any]:
        """With plain bytes, because pickle knows no float8 storage."""
        buffers = self._buffers | {"weight_packed": self.weight_packed.view(torch.uint8)}
        return self.__dict__ | {"_buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # PyTorch's
        self.weight_packed = self.weight_packed.view(torch.float8_e4m3fn)

    def multiply(self, operand: Any) -> Tensor:
        """[M, K] to [M, N]."""
        return products.multiply(operand, self.weight_packed, self.weight_scale, bias_N=self.bias)
