"""VGGT's forward pass on fused kernels: the outputs of `model.VGGT` up to rounding, in far less time.

The blocks do not depend on formats. A packed layer declares which operand it multiplies (`operand`). The producer
before it (layer norm, GELU, attention) makes that operand in the same pass over memory. The weights are the model's
tensors, not copies. A pass of few images is replayed as one CUDA graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vggt_quant.inference.attention._choice import describe
from vggt_quant.inference.fast.dense_head import lay_out as _lay_out
from vggt_quant.inference.fast.forward import FastForward, unsupported
from vggt_quant.inference.fast.graph import WORDS, GraphedPass
from vggt_quant.model import VGGT
from vggt_quant.variants import RunSettings

__all__ = ["FastForward", "lay_out", "prepare", "unsupported"]


def lay_out(model: VGGT) -> None:
    """Lay the memory of the dense heads' weights out as the pass wants it, which else keeps copies of them."""
    for head in (model.depth_head, model.point_head):
        if head is not None:
            _lay_out(head)


def prepare(
    model: VGGT, device: torch.device, settings: RunSettings
) -> tuple[Callable[[Tensor], dict[str, Any]], dict[str, str]]:
    """The fast pass for images [S, 3, H, W], and the names of what it runs for the records."""
    patch = model.config.patch_size
    names = {
        "engine": f"fast, {WORDS}",
        "attention": describe(device, model.aggregator.head_dim, settings),
        "dense": "cuBLAS and cuDNN bfloat16",
    }
    return GraphedPass(FastForward(model, device, settings), patch), names
