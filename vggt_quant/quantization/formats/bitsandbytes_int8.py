"""bitsandbytes_int8: LLM.int8() of bitsandbytes, int8 by row and by token. Tensors: `_integers.Int8`.

Columns of the activations with a value beyond 6 are multiplied in float16 instead (Dettmers et al. 2022,
arXiv:2208.07339). To find them the library waits for the device at every product, and it takes its activations in
float16, where values beyond 65,504 are infinite.
"""

from typing import Any

import torch
from torch import Tensor

from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec

THRESHOLD = 6.0


# kernel_error: activations are rounded to int8 by the library, row by row, half a step of 127.
SPEC = FormatSpec(bits=8, distribution="bitsandbytes", least_db=37, kernel_error=0.02)


class PackedLinear(Library, Int8):
    """A Linear over bitsandbytes' int8 state."""

    format = "bitsandbytes_int8"
    spec = SPEC
    library = "bitsandbytes"
    product = f"LLM.int8, threshold {THRESHOLD:g}"
    multiplies_in = "int8"
    in_graphs = False

    def hand_over(self, device: torch.device) -> Any:
        """A `MatmulLtState` over our bytes."""
        import bitsandbytes

        state = bitsandbytes.MatmulLtState()
        state.CB = self.weight_packed.to(device)
        # The library's scale is the row's largest weight.
        state.SCB = self.weight_scale.flatten().to(device, torch.float32) * 127
        state.has_fp16_weights, state.is_training, state.threshold = False, False, THRESHOLD
        return state

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product."""
        import bitsandbytes

        bias = None if bias_N is None else bias_N.half()
        out_MN: Tensor = bitsandbytes.matmul(x_MK.half(), made.CB, bias=bias, state=made)
        return out_MN
