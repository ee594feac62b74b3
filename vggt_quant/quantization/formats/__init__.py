"""Packed formats, one per file, found by file name: how integers are stored and multiplied.

Every format file has a class `PackedLinear`, a `base.PackedBase`, which replaces an `nn.Linear`; `base` is the whole
protocol. A format knows a Linear, never VGGT. Modules are swapped and tensors not subclassed, because a plain buffer
keeps autocast, safetensors and `sum of bytes` truthful. Names can be listed without importing torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggt_quant.quantization.formats.base import PackedBase


def names() -> list[str]:
    """All formats, by file name."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def get(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no format {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def layer(name: str) -> type[PackedBase]:
    """The class of a format's layers.

    Raises:
        ValueError: No file of that name.
    """
    found: type[PackedBase] = get(name).PackedLinear
    return found
