"""The driver: a model and a variant in, the packed model out, layer by layer and in place."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vggt_quant import formats, methods
from vggt_quant.policy import Policy, Selection, select
from vggt_quant.variants import Variant, find_variant


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """What was done to a model."""

    variant: Variant
    selection: Selection
    sqnr_db: dict[str, float]
    """Signal-to-noise ratio of each quantized weight."""
    seconds: float

    @property
    def sqnr_db_median(self) -> float | None:
        """Over layers; None when nothing was quantized."""
        return statistics.median(self.sqnr_db.values()) if self.sqnr_db else None


def quantize_model(model: nn.Module, variant: str | Variant, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Quantize the Linears of any module in place and return it.

    Args:
        model: VGGT, or anything with `nn.Linear` layers.
        variant: A name from `config/variants.yaml`, e.g. "int4_group128", or a `Variant` of your own.
        dtype: Type of everything that is not quantized. None leaves it as it is, so that your inputs still fit; the
            variants of the workflow store it in the `dtype` of their entry (bfloat16).

    Raises:
        ValueError: Unknown variant or setting, or nothing in the model that it could quantize.
    """
    run(model, find_variant(variant) if isinstance(variant, str) else variant, dtype=dtype)
    return model


def run(model: nn.Module, variant: Variant, *, dtype: torch.dtype | None) -> Quantization:
    """Quantize `model` in place and say what was done."""
    started = time.perf_counter()
    method = methods.get(variant.method)
    config = method_config(variant)
    selection = select(model, Policy.from_dict(variant.policy))
    if isinstance(model, nn.Linear):
        raise ValueError(
            "The model is itself a Linear and cannot be replaced in place; wrap it in nn.Sequential first."
        )
    if not selection.quantized and variant.method != "cast":
        kept = len(selection.kept)
        raise ValueError(f"{variant.name} finds nothing to quantize: the model has {kept} Linears and all are kept.")
    aliases = _aliases(model, selection.quantized)
    with torch.no_grad():
        sqnr_db = method.quantize(model, selection.quantized, config, None)
        for alias, name in aliases.items():
            model.set_submodule(alias, model.get_submodule(name))
        if dtype is not None:
            cast_dense(model, dtype)
    seconds = time.perf_counter() - started
    return Quantization(variant=variant, selection=selection, sqnr_db=sqnr_db, seconds=seconds)


def method_config(variant: Variant) -> Any:
    """The method's own settings, checked.

    Raises:
        ValueError: A setting that the method does not know or refuses.
    """
    config = methods.get(variant.method).Config
    known = {field.name for field in dataclasses.fields(config)}
    unknown = set(variant.config) - known
    if unknown:
        says = f"it knows {', '.join(sorted(known))}" if known else "it has no settings"
        raise ValueError(f"Variant {variant.name}: {variant.method} does not know {sorted(unknown)}; {says}.")
    try:
        return config(**variant.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Variant {variant.name}: {error}") from error


def cast_dense(model: nn.Module, dtype: torch.dtype) -> None:
    """Bring every floating parameter and buffer to `dtype`, but for what packed layers hold beside their bias."""
    packed = tuple(formats.packed_layers(model).values())
    inside = {id(module) for layer in packed for module in layer.modules()}
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.is_floating_point() and (id(module) not in inside or name == "bias"):
                _assign(module, name, tensor, dtype)


def _assign(module: nn.Module, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    if isinstance(tensor, nn.Parameter):
        tensor.data = tensor.data.to(dtype)
    else:
        setattr(module, name, tensor.to(dtype))


def _aliases(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Second names of the quantized layers -> the first name."""
    first = {id(model.get_submodule(name)): name for name in names}
    everywhere = model.named_modules(remove_duplicate=False)
    return {name: first[id(m)] for name, m in everywhere if id(m) in first and name != first[id(m)]}
