"""humming_int4: W4A16 of humming-kernels, int4 weights in groups, bfloat16 activations. Tensors: `_integers.Int4`."""

import torch
from torch import Tensor

from vggt_quant.quantization.formats._humming import Humming
from vggt_quant.quantization.formats._integers import Int4
from vggt_quant.quantization.formats._spec import FormatSpec

SPEC = FormatSpec(
    bits=4,
    grouped=True,
    devices=("cuda",),
    examples=({"group_size": 64},),
    distribution="humming-kernels",
    least_db=18.4,
)


class PackedLinear(Humming, Int4):
    """A Linear over a `HummingLayer` with int4 weights."""

    format = "humming_int4"
    spec = SPEC
    product = "int4 by bfloat16"
    multiple_of = 128
    """Of fewer outputs its tuning makes no tile."""
    weights = "int4"

    def words(self) -> Tensor:
        """int32 [N, K / 8]: eight integers of 0 to 15, which stand for -8 to 7."""
        if self.in_features % self.group_size:
            raise ValueError(f"humming_int4 has whole groups of {self.group_size}, but {self.in_features} inputs.")
        return self.weight_packed.view(torch.int32)
