"""Shared code of the three formats of humming-kernels: the library's layer with our weights.

The library compiles its kernels for a shape at the first call, by nvcc or NVRTC. It stores integers with an offset,
eight bits as 0 to 255, packed from the lowest bits of 32-bit words upward.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from vggt_quant.quantization.formats._library import Library


class Humming(Library):
    """A Linear over a `HummingLayer`; `words` is the format's."""

    library = "humming"
    multiple_of = 64
    rearranges = True
    weights: ClassVar[str]
    """Humming's name of the weights' type."""
    activations: ClassVar[str] = "bfloat16"
    """Humming's name of the type that activations are multiplied in."""
    group_size = 0
    """0: one scale per row."""

    def words(self) -> Tensor:
        """int32 [N, K * bits / 32]."""
        raise NotImplementedError

    def hand_over(self, device: torch.device) -> Any:
        """A `HummingLayer` over a copy of the weights."""
        from humming.layer import HummingLayer

        layer = HummingLayer(
            shape_n=self.out_features,
            shape_k=self.in_features,
            weight_config={"dtype": self.weights, "group_size": self.group_size},
            input_config={"dtype": self.activations},
            has_bias=self.bias is not None,
            torch_dtype=torch.bfloat16,
        )
        scale = self.weight_scale.view(self.out_features, -1).to(torch.bfloat16)
        tensors = {"weight": self.words(), "weight_scale": scale}
        layer.load_from_tensors(tensors if self.bias is None else {**tensors, "bias": self.bias})
        layer.to(device).transform()
        return layer

    def call(self, made: Any, x_MK: Tensor, bias_N: Tensor | None) -> Tensor:
        """The library's product; it has the bias already, and gives bfloat16."""
        out_MN: Tensor = made(x_MK.to(torch.bfloat16).contiguous())
        return out_MN
