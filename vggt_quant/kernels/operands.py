"""Operands of matrix products: bfloat16 rows, or 8-bit rows with a scale each. Needs no Triton.

Legend: M tokens, K width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["bfloat16", "int8", "int8_asymmetric", "float8"]
"""What a matrix product takes: bfloat16 [M, K], or `Rows` of int8 (with or without zero points) or float8 e4m3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """8-bit activations: row m stands for (values - zero) * scale."""

    values_MK: Tensor
    scale_M: Tensor
    zero_M: Tensor | None = None
    total_M: Tensor | None = None
    """Sum of values - zero, with zero points only: what the zero points of the weights multiply."""


Operand = Tensor | Rows
