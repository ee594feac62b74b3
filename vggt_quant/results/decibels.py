"""The signal-to-quantization-noise ratio of tensors. Imports no torch, because readers of results need none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sqnr_db(original: Tensor, approximation: Tensor) -> float:
    """Power of the original over the power of the error, in decibels; infinite when equal, NaN where either is NaN."""
    power = original.float().pow(2).mean().item()
    noise = (approximation.float() - original.float()).pow_(2).mean().item()
    if noise == 0:
        return math.inf
    ratio = power / noise
    return -math.inf if ratio == 0 else 10 * math.log10(ratio)
