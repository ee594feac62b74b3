"""Round to nearest float8: each weight takes the nearest e4m3 value under a scale that lets its row end at 448.

Needs no calibration (Micikevicius et al. 2022, arXiv:2209.05433; one scale per output channel as in PyTorch's
"rowwise" recipe).
"""

from dataclasses import dataclass

import torch
from torch import nn

from vggt_quant.quantization import formats
from vggt_quant.quantization.formats.base import replace
from vggt_quant.results import decibels
from vggt_quant.runtime.progress import track

LARGEST = 448.0
SMALLEST_SCALE = 1e-30
"""Of a row of zeros."""
FORMATS = ("fp8", "torchao_fp8", "humming_fp8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What multiplies the values."""

    format: str = "fp8"
    """One of `FORMATS`."""

    def __post_init__(self) -> None:
        """Refuse another format."""
        if self.format not in FORMATS:
            raise ValueError(f"format is {self.format!r}; round_to_float8 writes {', '.join(FORMATS)}.")


def quantize(model: nn.Module, layers: list[str], config: Config, calibration: None) -> dict[str, float]:
    """Replace the named Linears in place, one after the other."""
    sqnr_db = {}
    for name in track(layers, "round to float8"):
        linear = model.get_submodule(name)
        weight = linear.weight.detach().float()
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name}: a weight holds NaN or infinity; it cannot be quantized.")
        # A GPU divides by a number as it multiplies by the inverse, a CPU does not: so that both choose the same scale.
        scale_N = (weight.abs().amax(1) * (1 / LARGEST)).clamp(min=SMALLEST_SCALE)
        values_NK = (weight / scale_N[:, None]).to(torch.float8_e4m3fn)
        bias = None if linear.bias is None else linear.bias.detach()
        packed = formats.layer(config.format).from_values(values_NK, scale_N, bias)
        replace(model, name, packed)
        sqnr_db[name] = decibels.sqnr_db(weight, packed.dequantized())
    return sqnr_db
