"""w4a16: two weights per byte in groups, 16-bit activations. Tensors and cost: `_integers.Int4`.

The weights are made bfloat16 at each call and multiplied by the usual kernel: smaller than bfloat16, not faster.
"""

import torch
from torch import Tensor

from vggt_quant.kernels import torch_reference
from vggt_quant.quantization.formats._integers import Int4
from vggt_quant.quantization.formats._spec import FormatSpec

SPEC = FormatSpec(
    bits=4,
    grouped=True,
    zero_points=True,
    examples=({"group_size": 128}, {"group_size": 64}, {"group_size": 48, "zero_points": True}),
    least_db=18.4,
)


class PackedLinear(Int4):
    """A Linear over packed int4 weights."""

    format = "w4a16"
    spec = SPEC

    @classmethod
    def kernel(cls, device: torch.device) -> str:
        """The kernel that runs on `device`."""
        return "triton: dequantize, then cuBLAS" if device.type == "cuda" else "torch: dequantize, then matmul"

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N]."""
        if operand.is_cuda and operand.dtype == torch.bfloat16:
            from vggt_quant.kernels.unpack import unpack_int4

            return torch_reference.linear(operand, unpack_int4(*self.stored(), "bfloat16"), self.bias)
        return torch_reference.linear(
            operand, torch_reference.dequantize_int4(*self.stored(), operand.dtype), self.bias
        )
