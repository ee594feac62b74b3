"""Attention backends of the fast engine, one per file, found by file name.

`base` defines what a file declares, `_choice` which one runs.

Their names are the values of a variant's `run.attention`. They are read without importing torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggt_quant.inference.attention.base import Backend


def names() -> list[str]:
    """All backends, by file name."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def get(name: str) -> Backend:
    """A backend.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no attention {name!r}; there are {', '.join(names())}.")
    found: Backend = importlib.import_module(f"{__name__}.{name}").BACKEND
    return found
