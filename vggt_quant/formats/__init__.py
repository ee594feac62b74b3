"""Packed formats, one per file, found by file name: how integers are stored and multiplied.

Every format file has a class `PackedLinear`, an `nn.Module` that replaces an `nn.Linear`, with

    format                          the name of its file
    fields() -> dict                what JSON can hold: sizes and settings
    tensors() -> dict               what the checkpoint stores: plain tensors
    from_tensors(fields, tensors)   the inverse of both
    dequantized() -> Tensor         float32 [N, K]: the weights that it stands for
    num_weights, packed_bytes()     how many weights in how many bytes, scales and zero points included
    kernel(device) -> str           the kernel that runs on that device

A format knows a Linear, never VGGT. Modules are swapped and tensors not subclassed, because a plain buffer keeps
autocast, safetensors and `sum of bytes` truthful.
"""

import importlib
import pkgutil
from types import ModuleType

import torch
from torch import nn


def names() -> list[str]:
    """All formats, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no format {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def packed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every packed layer of a model by name; a layer that stands at two names is listed under both."""
    known = tuple(get(name).PackedLinear for name in names())
    return {name: layer for name, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, known)}


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The type a Linear would multiply `x` in: autocast's while autocast is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
