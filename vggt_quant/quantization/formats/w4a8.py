"""w4a8: two weights per byte in groups, 8-bit activations and arithmetic. Tensors and cost: `_integers.Int4`.

GPUs since Hopper multiply no 4-bit integers. So each call widens the weights under one scale per row, to float8 where
the GPU multiplies it and to int8 elsewhere, in temporary memory. This second rounding error is far smaller than the
first (31 and 40 dB; groups of 128 leave 20). So the smallest checkpoints run as fast as 8-bit ones.
"""

import torch
from torch import Tensor

from vggt_quant.kernels import cpu_int8, products, torch_reference
from vggt_quant.kernels.operands import Kind, Rows
from vggt_quant.quantization.formats._integers import Int4
from vggt_quant.quantization.formats._spec import FormatSpec

# kernel_error: weights are rounded a second time, to a 254th of their row's range.
SPEC = FormatSpec(
    bits=4,
    grouped=True,
    zero_points=True,
    examples=({"group_size": 128}, {"group_size": 48, "zero_points": True}),
    least_db=18.4,
    kernel_error=0.01,
)


class PackedLinear(Int4):
    """A Linear over packed int4 weights, multiplied in 8 bits."""

    format = "w4a8"
    spec = SPEC

    @property
    def operand(self) -> Kind:
        """float8 where the device multiplies it, else int8."""
        return "float8" if products.has_float8(self.weight_packed.device) else "int8"

    @classmethod
    def unsupported(cls, device: torch.device) -> str | None:
        """Why `device` cannot run it, or None."""
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
            return f"w4a8 has no kernel for {torch.cuda.get_device_name(device)}; use w4a16 there"
        return super().unsupported(device)

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        if device.type != "cuda":
            return f"torch: widen to int8, then {cpu_int8.kernel()}"
        return f"triton: widen, then {'torch._scaled_mm' if products.has_float8(device) else 'triton gemm int8'}"

    def multiply(self, operand: Rows) -> Tensor:
        """[M, K] to [M, N]."""
        kind: Kind = "int8" if operand.values_MK.dtype == torch.int8 else "float8"
        if not self.weight_packed.is_cuda:
            weight_NK, scale_N = torch_reference.int4_to_rows(*self.stored(), kind)
            return products.multiply(operand, weight_NK, scale_N, bias_N=self.bias)
        from vggt_quant.kernels.unpack import unpack_int4

        scale_N = self._row_scale(kind)
        weight_NK = unpack_int4(*self.stored(), kind, scale_N)
        return products.multiply(operand, weight_NK, scale_N, bias_N=self.bias)

    def _row_scale(self, kind: Kind) -> Tensor:
        """float32 [N]."""
        scale_N: Tensor = self._derive(
            lambda: torch_reference.int4_row_scale(self.weight_scale, self.weight_zero_point, kind)
        )
        return scale_N
