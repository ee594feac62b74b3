"""Round to NormalFloat4: each weight takes the nearest of 16 values under the largest magnitude of its block of 64.

Needs no calibration (Dettmers et al. 2023, QLoRA, arXiv:2305.14314).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggt_quant.quantization.formats.base import replace
from vggt_quant.quantization.formats.bitsandbytes_nf4 import BLOCK, VALUES, PackedLinear
from vggt_quant.results import decibels
from vggt_quant.runtime.progress import track


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Nothing to set."""


def quantize(model: nn.Module, layers: list[str], config: Config, calibration: None) -> dict[str, float]:
    """Replace the named Linears in place, one after the other."""
    sqnr_db = {}
    for name in track(layers, "round to nf4"):
        linear = model.get_submodule(name)
        weight = linear.weight.detach()
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name}: a weight holds NaN or infinity; it cannot be quantized.")
        packed = PackedLinear.from_codes(*_codes(weight), None if linear.bias is None else linear.bias.detach())
        replace(model, name, packed)
        sqnr_db[name] = decibels.sqnr_db(weight, packed.dequantized())
    return sqnr_db


def _codes(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [N, K] into `VALUES` and the scales of the blocks, which run on from row to row."""
    flat = weight_NK.float().flatten()
    blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale_B = blocks.abs().amax(1)
    values = torch.tensor(VALUES, device=flat.device)
    middles = (values[1:] + values[:-1]) / 2
    codes = torch.bucketize(blocks / scale_B.clamp(min=torch.finfo(torch.float32).tiny)[:, None], middles)
    return codes.flatten()[: len(flat)].view_as(weight_NK), scale_B
