"""w8a16: one byte per weight, 16-bit activations. Tensors and cost: `_integers.Int8`.

The weights are made bfloat16 at each call and multiplied by the usual kernel: smaller than bfloat16, not faster.
"""

import torch
from torch import Tensor

from vggt_quant.kernels import torch_reference
from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._spec import FormatSpec

SPEC = FormatSpec(bits=8, zero_points=True, examples=({}, {"zero_points": True}), least_db=40)


class PackedLinear(Int8):
    """A Linear over int8 weights."""

    format = "w8a16"
    spec = SPEC

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return "triton: dequantize, then cuBLAS" if device.type == "cuda" else "torch: dequantize, then matmul"

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N]."""
        stored = self.weight_packed, self.weight_scale, self.weight_zero_point
        if operand.is_cuda and operand.dtype == torch.bfloat16:
            from vggt_quant.kernels.unpack import unpack_int8

            return torch_reference.linear(operand, unpack_int8(*stored), self.bias)
        return torch_reference.linear(operand, torch_reference.dequantize_int8(*stored, operand.dtype), self.bias)
