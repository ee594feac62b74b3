"""Packed formats, one per file, found by file name: how integers are stored and multiplied.

Every format file has a class `PackedLinear`, a `base.PackedBase`, which replaces an `nn.Linear`; `base` is the whole
protocol. A format depends on Linears only, not on VGGT. It replaces modules and does not subclass tensors, because
autocast, safetensors and byte counts work on plain buffers. Names and facts (`SPEC`) are read without importing torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vggt_quant.quantization.formats._spec import FormatSpec, read_spec
from vggt_quant.results.validation import near

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
    _expect(name)
    return importlib.import_module(f"{__name__}.{name}")


def layer(name: str) -> type[PackedBase]:
    """The class of a format's layers.

    Raises:
        ValueError: No file of that name.
    """
    found: type[PackedBase] = get(name).PackedLinear
    return found


@functools.cache
def spec(name: str) -> FormatSpec:
    """What a format's file declares about it.

    Raises:
        ValueError: No file of that name, or one without a sound declaration.
    """
    _expect(name)
    return read_spec(Path(__file__).with_name(f"{name}.py"))


def _expect(name: str) -> None:
    if name not in names():
        raise ValueError(f"There is no format {name!r}{near(name, names())}; there are {', '.join(names())}.")
