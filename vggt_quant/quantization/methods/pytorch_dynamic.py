"""PyTorch dynamic INT8: `torch.ao.quantization.quantize_dynamic` as its users call it, on a float32 model on the CPU.

Weights get one int8 scale per matrix, activations one scale per tensor, found anew at each call. CPU only (see the
format's docstring for the famous failure on CUDA).
"""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

from vggt_quant.quantization.formats.base import replace
from vggt_quant.quantization.formats.pytorch_dynamic_int8 import PackedLinear
from vggt_quant.results import decibels
from vggt_quant.runtime.progress import track

DEVICES = ("cpu",)
"""Where this method can run; methods that do not say run everywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Nothing to set: torch's defaults are what is measured."""


def quantize(model: nn.Module, layers: list[str], config: Config, calibration: None) -> dict[str, float]:
    """Run `quantize_dynamic` on the named Linears in place, one at a time so that memory stays near one copy.

    Raises:
        ValueError: The model is not float32 on the CPU; it is then left as it was.
    """
    for name in layers:
        weight = model.get_submodule(name).weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            raise ValueError(
                f"{name} is {weight.dtype} on {weight.device}; PyTorch dynamic INT8 packs float32 weights on the CPU: "
                "call model.cpu().float() first."
            )
    sqnr_db = {}
    for name in track(layers, "quantize_dynamic"):
        linear = model.get_submodule(name)
        packed = PackedLinear(_quantize_dynamic(linear), has_bias=linear.bias is not None)
        replace(model, name, packed)
        sqnr_db[name] = decibels.sqnr_db(linear.weight.detach(), packed.dequantized())
    return sqnr_db


def _quantize_dynamic(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        # quantize_dynamic announces its own end (and that of the qint8 type); it is measured while it lasts.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(quint8|qint8|quantized|torch.ao).*", category=UserWarning)
        model = quantize_dynamic(nn.Sequential(linear), {"0": default_dynamic_qconfig}, dtype=torch.qint8, inplace=True)
    # It leaves a settings object on the old layer that refers back to it: a cycle that would keep every float32 weight
    # in memory until the garbage collector comes by, and that may be after the last layer.
    del linear.qconfig
    return model[0]
