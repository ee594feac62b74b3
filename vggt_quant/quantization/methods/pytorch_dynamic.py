"""PyTorch dynamic INT8: `torch.ao.quantization.quantize_dynamic` as its users call it, on a float32 model on the CPU.

Weights get one int8 scale per matrix, activations one scale per tensor, computed at each call. CPU only (the format's
docstring quotes the error on CUDA).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from vggt_quant.quantization.methods import MethodConfig, linear_of

if TYPE_CHECKING:
    from torch import nn
    from torch.ao.nn.quantized import dynamic

    from vggt_quant.quantization.methods import Calibration, Replace


class Config(MethodConfig, frozen=True, kw_only=True):
    """Nothing to set: torch's defaults are what is measured."""

    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    @property
    def packs(self) -> str | None:
        """Its own format."""
        return "pytorch_dynamic_int8"


def quantize(
    model: nn.Module, layers: list[str], config: Config, replace: Replace, calibration: Calibration | None
) -> None:
    """Run `quantize_dynamic` on the named Linears, one at a time so that memory stays near one copy.

    Raises:
        ValueError: The model is not float32 on the CPU; it is then left as it was.
    """
    from vggt_quant.quantization.formats.pytorch_dynamic_int8 import PackedLinear

    _expect_float32_on_the_cpu(model, layers)
    for name in layers:
        linear = linear_of(model, name)
        replace(name, PackedLinear(_quantize_dynamic(linear), has_bias=linear.bias is not None))


def _expect_float32_on_the_cpu(model: nn.Module, layers: list[str]) -> None:
    import torch

    for name in layers:
        weight = linear_of(model, name).weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            raise ValueError(
                f"{name} is {weight.dtype} on {weight.device}; PyTorch dynamic INT8 packs float32 weights on the CPU: "
                "call model.cpu().float() first."
            )


def _quantize_dynamic(linear: nn.Module) -> dynamic.Linear:
    import torch
    from torch import nn
    from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

    with warnings.catch_warnings():
        # quantize_dynamic announces its own end (and that of the qint8 type); it is measured while it lasts.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(quint8|qint8|quantized|torch.ao).*", category=UserWarning)
        model = quantize_dynamic(  # type: ignore[no-untyped-call]  # PyTorch gives it no types
            nn.Sequential(linear), {"0": default_dynamic_qconfig}, dtype=torch.qint8, inplace=True
        )
    # It leaves a settings object on the old layer that refers back to it: a cycle that would keep every float32 weight
    # in memory until the garbage collector comes by, and that may be after the last layer.
    del linear.qconfig
    packed: dynamic.Linear = model[0]
    return packed
