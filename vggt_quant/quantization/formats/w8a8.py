"""w8a8: one byte per weight, 8-bit activations with a scale per token, integer arithmetic. Tensors: `_integers.Int8`.

Activations are quantized at run time ("dynamic"). If the weights have zero points, the activations have them, too. Both
are subtracted from the integer product with the sums of the other operand's rows:

    sum (a - za)(w - zw) = sum a w - za sum w - zw sum (a - za)

Runs on any CPU, and on GPUs with integer matrix units that Triton reaches (compute capability 8.0 to 9.0).
"""

import torch
from torch import Tensor

from vggt_quant.kernels import cpu_int8, products
from vggt_quant.kernels.operands import Kind, Rows
from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._spec import FormatSpec

SPEC = FormatSpec(bits=8, zero_points=True, examples=({}, {"zero_points": True}), least_db=37)


class PackedLinear(Int8):
    """A Linear in int8."""

    format = "w8a8"
    spec = SPEC

    @property
    def operand(self) -> Kind:
        """Activations have zero points if the weights have."""
        return "int8" if self.weight_zero_point is None else "int8_asymmetric"

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device` cannot run it, or None."""
        if device.type == "cuda" and not (8, 0) <= torch.cuda.get_device_capability(device) < (10, 0):
            return f"w8a8 has no kernel for {torch.cuda.get_device_name(device)}; use fp8 there"
        return super().unsupported(device)

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return "triton gemm int8" if device.type == "cuda" else cpu_int8.kernel()

    def multiply(self, operand: Rows) -> Tensor:
        """[M, K] to [M, N]."""
        scale_N, zero_N, sum_N = self._derive(self._per_output)
        return products.multiply(
            operand, self.weight_packed, scale_N, zero_N=zero_N, sum_N=sum_N, bias_N=self.bias
        )  # fmt: skip

    def _per_output(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Scales, zero points and sums of the weight's rows in the shape and type of the product."""
        scale_N = self.weight_scale.flatten().float()
        if self.weight_zero_point is None:
            return scale_N, None, None
        sum_N = self.weight_packed.sum(1, dtype=torch.int32).float()
        return scale_N, self.weight_zero_point.flatten().float(), sum_N
