"""The variant that a model was quantized by: its module remembers it, and the header of its checkpoint records it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
from torch import nn

from vggt_quant.results.validation import build
from vggt_quant.variants import DEFAULT, RunSettings, Variant

ATTRIBUTE = "_made_by"


def describe(variant: Variant) -> dict[str, Any]:
    """A variant as a header has it: its name, what decides the tensors, and how they are run."""
    return {"name": variant.name, **variant.spec(), "run": msgspec.to_builtins(variant.run)}


def remember(model: nn.Module, description: Mapping[str, Any] | None) -> None:
    """Note which variant a model is of; None where it is of no single one."""
    setattr(model, ATTRIBUTE, copy.deepcopy(dict(description)) if description else None)


def remembered(model: nn.Module) -> dict[str, Any] | None:
    """The description of the variant that a model is of, or None."""
    return getattr(model, ATTRIBUTE, None)


def run_of(description: Mapping[str, Any] | None, where: str) -> RunSettings:
    """How the described variant is run; the default where nothing says so, as in files of earlier versions.

    Args:
        description: As `describe` makes it.
        where: Its place in messages.

    Raises:
        ValueError: Settings that this package does not have, such as an attention backend of another version.
    """
    if not description or description.get("run") is None:
        return DEFAULT
    try:
        return build(RunSettings, description["run"], f"{where}: run")
    except ValueError as error:
        raise ValueError(f"{error} Name another variant to run it like: run='bf16' in load, or --variant.") from error
