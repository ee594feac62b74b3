"""The driver: quantize a model as a variant says, layer by layer and in place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vggt_quant.model import VGGT
from vggt_quant.quantization import made_by, methods
from vggt_quant.quantization.formats.base import PackedBase, packed_layers
from vggt_quant.quantization.formats.base import replace as put
from vggt_quant.quantization.policy import Selection, select
from vggt_quant.results import decibels
from vggt_quant.results.validation import near
from vggt_quant.runtime import progress
from vggt_quant.variants import Variant, find_variant

DTypeName = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """What was done to a model."""

    variant: Variant
    selection: Selection
    sqnr_db: dict[str, float]
    """Signal-to-noise ratio of each quantized weight; infinite where it is exact, as for zeros."""
    seconds: float


def quantize_model(
    model: nn.Module, variant: str | Variant, *, dtype: torch.dtype | DTypeName | Literal["keep"] | None = None
) -> nn.Module:
    """Quantize the Linears of any module in place and return it.

    Args:
        model: VGGT, or anything with `nn.Linear` layers.
        variant: A name from `config/variants.yaml`, e.g. "int4_group128", or a `Variant` of your own.
        dtype: Type of everything that is not quantized. None takes the `dtype` of the variant's entry for the VGGT of
            this package, so that its size and speed are those of the report; it takes float32 images as before. Any
            other module keeps its types, so that its inputs still fit. "keep" leaves VGGT's as they are, too. A type's
            name is taken, too: "bfloat16".

    A model that is then what the variant's entry says remembers the variant, for `save` and for how it is run.

    Raises:
        ValueError: Unknown variant, setting or dtype, nothing in the model that it could quantize, or a weight that is
            not finite, whose name it says. The model is then as it was.
    """
    variant = find_variant(variant) if isinstance(variant, str) else variant
    if dtype is None and isinstance(model, VGGT):
        dtype = getattr(torch, variant.dtype)
    run(model, variant, dtype=None if dtype is None or dtype == "keep" else _dtype(dtype))
    return model


def _dtype(dtype: Any) -> torch.dtype:
    names = get_args(DTypeName)
    name = str(dtype).removeprefix("torch.")
    if name not in names:
        choices = ", ".join(map(repr, (*names, "keep")))
        raise ValueError(f"dtype is {dtype!r}{near(name, names)}; choose one of {choices}, or leave it out.")
    found: torch.dtype = getattr(torch, name)
    return found


def run(model: nn.Module, variant: Variant, *, dtype: torch.dtype | None) -> Quantization:
    """Quantize `model` in place and say what was done; see `quantize_model`."""
    started = time.perf_counter()
    method, config = methods.get(variant.method), methods.config_of(variant)
    selection = select(model, variant.policy)
    _check_model(model)
    if not selection.quantized and config.packs:
        raise ValueError(f"{variant.name} finds nothing to quantize: {_why_nothing(model, selection)}.")
    if config.packs:
        _expect_finite(model, selection.quantized)
    aliases = _aliases(model, selection.quantized)
    is_original = made_by.remembered(model) is None and not packed_layers(model)
    sqnr_db: dict[str, float] = {}
    with torch.no_grad(), progress.steps(variant.method.replace("_", " "), len(selection.quantized)) as advance:
        method.quantize(model, selection.quantized, config, _replace(model, sqnr_db, advance), None)
        for alias, name in aliases.items():
            model.set_submodule(alias, model.get_submodule(name))
        if dtype is not None:
            cast_dense(model, dtype)
    as_described = is_original and dtype == getattr(torch, variant.dtype)
    made_by.remember(model, made_by.describe(variant) if as_described else None)
    seconds = time.perf_counter() - started
    return Quantization(variant=variant, selection=selection, sqnr_db=sqnr_db, seconds=seconds)


def _replace(model: nn.Module, sqnr_db: dict[str, float], advance: Callable[[], None]) -> methods.Replace:
    """What a method calls for each layer; it also notes how far the packed weight is from the one that it replaces."""

    def replace(name: str, packed: PackedBase) -> None:
        weight = methods.linear_of(model, name).weight.detach()
        sqnr_db[name] = decibels.sqnr_db(weight, packed.dequantized())
        put(model, name, packed)
        advance()

    return replace


def _check_model(model: nn.Module) -> None:
    """Refuse what has no weights or no place to put packed ones."""
    if isinstance(model, nn.Linear):
        raise ValueError(
            "The model is itself a Linear and cannot be replaced in place; wrap it in nn.Sequential first."
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} has no size yet; run the model once, then quantize it.")
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; load the weights, then quantize.")


def _expect_finite(model: nn.Module, layers: list[str]) -> None:
    for name in layers:
        if not torch.isfinite(methods.linear_of(model, name).weight).all():
            raise ValueError(f"{name}: its weight holds NaN or infinity and cannot be quantized.")


def _why_nothing(model: nn.Module, selection: Selection) -> str:
    packed, kept = len(packed_layers(model)), len(selection.kept)
    if packed:
        return f"{packed} layers of the model are packed already; load the original again"
    if not kept:
        return "the model has no nn.Linear"
    reason, _ = Counter(selection.kept.values()).most_common(1)[0]
    return f"the model has {kept} Linears and all are kept, most of them because: {reason}"


def cast_dense(model: nn.Module, dtype: torch.dtype) -> None:
    """Bring every floating parameter and buffer to `dtype`, except what packed layers hold besides their bias."""
    inside = {module for layer in packed_layers(model).values() for module in layer.modules()}
    buffers: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point() and (module not in inside or name == "bias"):
                # A buffer cannot change its type in place, so one that two modules share is replaced by one in both.
                setattr(module, name, buffers.setdefault(id(buffer), buffer.to(dtype)))


def _aliases(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Second names of the quantized layers -> the first name."""
    first = {model.get_submodule(name): name for name in names}
    everywhere = model.named_modules(remove_duplicate=False)
    return {name: first[module] for name, module in everywhere if first.get(module, name) != name}
