"""Cast: change the dtype and quantize nothing. The variants `fp32` and `bf16`, the baselines of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggt_quant.quantization.methods import MethodConfig

if TYPE_CHECKING:
    from torch import nn

    from vggt_quant.quantization.methods import Calibration, Replace


class Config(MethodConfig, frozen=True, kw_only=True):
    """Nothing to set: the type is the variant's `dtype`."""


def quantize(
    model: nn.Module, layers: list[str], config: Config, replace: Replace, calibration: Calibration | None
) -> None:
    """Leave every layer as it is."""
