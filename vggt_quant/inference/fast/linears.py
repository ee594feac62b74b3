"""The interface of a Linear, packed or not, for the blocks: the operand that it multiplies, and the product."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional

from vggt_quant.kernels.operands import Kind
from vggt_quant.kernels.rows import quantize
from vggt_quant.quantization.formats.base import PackedBase


class Multiplier(Protocol):
    """A Linear that takes one type of operand."""

    @property
    def operand(self) -> Kind:
        """What it multiplies."""

    def multiply(self, operand: Any) -> Tensor:
        """[M, K] of that type to bfloat16 [M, N], with the bias."""


class Dense:
    """A bfloat16 Linear, by cuBLAS."""

    operand: Kind = "bfloat16"

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N]."""
        return functional.linear(operand, self.linear.weight, self.linear.bias)


class Plain:
    """Any other module that maps the last dimension: it is called as it is."""

    operand: Kind = "bfloat16"

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def multiply(self, operand: Tensor) -> Tensor:
        """[M, K] to [M, N]."""
        out_MN: Tensor = self.module(operand)
        return out_MN


def multiplier(module: nn.Module) -> Multiplier:
    """The view of a Linear or of a packed layer."""
    if type(module) is nn.Linear:
        return Dense(module)
    return module if isinstance(module, PackedBase) else Plain(module)


def multiply(module: Multiplier, x_MK: Tensor) -> Tensor:
    """Multiply bfloat16 rows that no producer has prepared."""
    return module.multiply(quantize(x_MK, module.operand))
