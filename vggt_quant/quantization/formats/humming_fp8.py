"""humming_fp8: float8 e4m3 of humming-kernels, weights by row and activations by token. Tensors: `fp8`.

The library takes the scales of the weights in bfloat16, which costs up to 0.2 percent of a row.
"""

import torch
from torch import Tensor

from vggt_quant.quantization.formats._humming import Humming
from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.fp8 import PackedLinear as Float8

SPEC = FormatSpec(bits=8, integers=False, devices=("cuda",), distribution="humming-kernels", least_db=28)


class PackedLinear(Humming, Float8):
    """A Linear over a `HummingLayer` in float8."""

    format = "humming_fp8"
    spec = SPEC
    product = "float8 by float8"
    least_capability = (8, 9)
    multiplies_in = "float8"
    weights = activations = "float8e4m3"

    def words(self) -> Tensor:
        """int32 [N, K / 4]."""
        return self.weight_packed.view(torch.int32)
