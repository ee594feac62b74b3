"""torchao_int8: torchao's dynamic W8A8, int8 weights by row and activations by token. Tensors: `_integers.Int8`.

What `Int8DynamicActivationInt8WeightConfig` makes of a Linear, from integers that we rounded. It is made to be
compiled: called as it is on a GPU, torchao waits for the device at every product. Sides that are no multiples of 8 it
would multiply on the CPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec

# kernel_error: activations are rounded to int8 by the library, row by row, half a step of 127.
SPEC = FormatSpec(bits=8, distribution="torchao", least_db=37, kernel_error=0.02)


class PackedLinear(Library, Int8):
    """A Linear over a torchao `Int8Tensor`."""

    format = "torchao_int8"
    spec = SPEC
    library = "torchao"
    product = "Int8Tensor, dynamic by token"
    multiple_of = 8
    in_graphs = False
    multiplies_in = "int8"

    def hand_over(self, device: torch.device) -> Any:
        """An `Int8Tensor` over our bytes."""
        from torchao.quantization import Int8Tensor, PerRow
        from torchao.quantization.quantize_.workflows.int8.int8_tensor import QuantizeTensorToInt8Kwargs

        return Int8Tensor(
            self.weight_packed.to(device),
            self.weight_scale.to(device, torch.float32),
            block_size=[1, self.in_features],
            dtype=torch.bfloat16,
            act_quant_kwargs=QuantizeTensorToInt8Kwargs(granularity=PerRow()),
        )

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product."""
        return functional.linear(x_MK, made, bias_N)
