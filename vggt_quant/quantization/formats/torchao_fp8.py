"""torchao_fp8: torchao's dynamic float8, weights by row and activations by token. Tensors and cost: `fp8`.

What `Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())` makes of a Linear.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.kernels import products
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.formats.fp8 import PackedLinear as Float8

SPEC = FormatSpec(bits=8, integers=False, devices=("cuda",), distribution="torchao", least_db=28)


class PackedLinear(Library, Float8):
    """A Linear over a torchao `Float8Tensor`."""

    format = "torchao_fp8"
    spec = SPEC
    library = "torchao"
    product = "Float8Tensor, dynamic by token"
    least_capability = (8, 9)
    multiple_of = 16
    multiplies_in = "float8"

    def hand_over(self, device: torch.device) -> Any:
        """A `Float8Tensor` over our bytes."""
        from torchao.float8.inference import Float8MMConfig
        from torchao.quantization import Float8Tensor, PerRow
        from torchao.quantization.quantize_.workflows.float8.float8_tensor import QuantizeTensorToFloat8Kwargs

        return Float8Tensor(
            self.weight_packed.to(device),
            self.weight_scale[:, None].to(device),
            block_size=[1, self.in_features],
            mm_config=Float8MMConfig(use_fast_accum=True),
            act_quant_kwargs=QuantizeTensorToFloat8Kwargs(granularity=PerRow()),
            dtype=torch.bfloat16,
        )

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product; too few rows are filled up with zeros."""
        rows, missing = len(x_MK), products.FEW_ROWS - len(x_MK)
        if missing > 0:  # padding by nothing would copy all rows
            x_MK = functional.pad(x_MK, (0, 0, 0, missing))
        return functional.linear(x_MK, made, bias_N)[:rows]
