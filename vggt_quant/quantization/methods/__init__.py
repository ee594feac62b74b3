"""Quantization methods, one per file, found by file name: algorithms that decide the integers.

Every method file has

    Config                                                       a frozen keyword-only dataclass of its settings
    quantize(model, layers, config, calibration) -> dict         replaces the named Linears of `model` in place by
                                                                 packed ones; returns the weights' SQNR in dB by layer

Methods are needed only to make a checkpoint. None knows another one.
"""

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """All methods, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> ModuleType:
    """The module of a method.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no method {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")
