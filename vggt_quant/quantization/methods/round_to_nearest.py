"""Round to nearest (RTN): each weight takes the nearest value that the format has under its row's or group's scale.

The simplest post-training quantization, and the baseline for all others (Krishnamoorthi 2018, arXiv:1806.08342). It
needs no calibration and works layer by layer, so memory never exceeds the model plus one layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vggt_quant.quantization import formats
from vggt_quant.quantization.methods import FormatConfig, linear_of

if TYPE_CHECKING:
    from torch import nn

    from vggt_quant.quantization.methods import Calibration, Replace


class Config(FormatConfig, frozen=True, kw_only=True):
    """What decides the values."""

    integers_only: ClassVar[bool] = False


def quantize(
    model: nn.Module, layers: list[str], config: Config, replace: Replace, calibration: Calibration | None
) -> None:
    """Replace the named Linears one after the other."""
    packed = formats.layer(config.format)
    for name in layers:
        linear = linear_of(model, name)
        bias = None if linear.bias is None else linear.bias.detach()
        replace(name, packed.from_weight(linear.weight.detach(), bias, **config.grid()))
