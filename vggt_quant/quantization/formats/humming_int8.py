"""humming_int8: W8A8 of humming-kernels, int8 weights by row and activations by token. Tensors: `_integers.Int8`."""

import torch
from torch import Tensor

from vggt_quant.quantization.formats._humming import Humming
from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._spec import FormatSpec

SPEC = FormatSpec(bits=8, devices=("cuda",), distribution="humming-kernels", least_db=37)


class PackedLinear(Humming, Int8):
    """A Linear over a `HummingLayer` in int8."""

    format = "humming_int8"
    spec = SPEC
    product = "int8 by int8"
    weights = activations = multiplies_in = "int8"

    def words(self) -> Tensor:
        """int32 [N, K / 4]: four integers of 0 to 255."""
        return (self.weight_packed.view(torch.uint8) ^ 128).view(torch.int32)
