"""The quantize stage: model + variant -> a packed checkpoint in the cache, and its figures.

Sizes, shares and counts are computed from the packed model whenever the result is written, also for a checkpoint that
lies in the cache. Its header keeps what the file alone does not tell: why layers were kept, and what was measured at
the making (`Making`). Seconds, peak memory and machine are those of the making. The SQNR of the weights has a hash of
the code that computed it; where that is not today's, the checkpoint is made again, and its tensors come out the same.
"""

import logging
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, made_by, methods, quantize
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.results.files import whole
from vggt_quant.results.record import Measured, finite
from vggt_quant.results.schema import KeptLayer, Making, ModelResult, QuantizeResult
from vggt_quant.results.validation import build
from vggt_quant.runtime import cache_keys, fingerprint, memory, tensor_file
from vggt_quant.runtime.provenance import provenance
from vggt_quant.runtime.tensor_file import tensor_bytes
from vggt_quant.variants import Variant

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Packed:
    """A packed model, just made or opened from the cache, and what the making told."""

    model: nn.Module
    kept: dict[str, str]
    """Linear layer that stays dense -> why."""
    making: Making


def make_checkpoint(model: ModelResult, variant: Variant, cache: Path | str, device: str) -> QuantizeResult:
    """Quantize the model, or find that the cache holds, undamaged, what would come out.

    Raises:
        ValueError: Impossible settings, or weights that are not there any more.
        OSError: The cache cannot be written.
    """
    key = cache_keys.checkpoint_key(variant, [model.weights_sha256, model.config], device)
    path = _place(cache_keys.cached(cache, "checkpoints", f"{variant.name}-{key}"), key)
    found = _find(path)
    packed = found or _make(model, variant, path, device)
    return _describe(packed, model, variant, key, path, cached=found is not None)


def write_checkpoint(model: ModelResult, variant: Variant, path: Path, device: str) -> QuantizeResult:
    """Quantize the model into a file of one's own, in place of what is there.

    Raises:
        ValueError: Impossible settings, or weights that are not there any more.
        OSError: The file cannot be written.
    """
    key = cache_keys.checkpoint_key(variant, [model.weights_sha256, model.config], device)
    return _describe(_make(model, variant, path, device), model, variant, key, path, cached=False)


def copy_checkpoint(made: QuantizeResult, variant: Variant, path: Path) -> QuantizeResult:
    """Copy a checkpoint of the cache to a place of one's own, where its header describes the variant asked for.

    The file in the cache may be the one of another variant, which only is run differently.

    Raises:
        OSError: The file cannot be written; what was there stays.
    """
    manifest, description = checkpoint.read_manifest(made.checkpoint), made_by.describe(variant)
    if manifest.get("variant") == description:
        with whole(path) as file:
            shutil.copyfile(made.checkpoint, file)
    else:
        about = {key: value for key, value in manifest.items() if key not in tensor_file.CHECKSUMS}
        tensors = tensor_file.read_tensors(made.checkpoint)
        tensor_file.write_tensors(tensors, path, {**about, "variant": description})
    return msgspec.structs.replace(made, checkpoint=str(path.absolute()), checkpoint_bytes=path.stat().st_size)


def _place(path: Path, key: str) -> Path:
    """Where a checkpoint lies or will lie; variants that differ in name or `run` only share the first one's."""
    return next(iter(sorted(path.parent.glob(f"*-{key}{path.suffix}"))), path)


def _find(path: Path) -> _Packed | None:
    """What a checkpoint in the cache holds; None if there is none, or not a sound one."""
    if not path.is_file():
        return None
    try:
        model, manifest = checkpoint.load_packed(path), checkpoint.read_manifest(path)
        if manifest["sqnr_code"] != _sqnr_code():
            raise ValueError("other code computed the SQNR of its weights")
        # Other versions of this package may have stored more.
        known = {name: manifest["making"][name] for name in Making.__struct_fields__ if name in manifest["making"]}
        making = build(Making, known, f"{path}: making")
        kept = build(dict[str, str], manifest["kept"], f"{path}: kept")
        for layer in packed_layers(model).values():
            layer.derived.forget()  # what a library made of it for a run; nothing is derived just after the making
        return _Packed(model=model, kept=kept, making=making)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("Making %s again, which cannot be used: %s", path, error)
        return None


def _make(model: ModelResult, variant: Variant, path: Path, device: str) -> _Packed:
    supported = methods.config_of(variant).devices
    target = device if device in supported else supported[0]
    vggt = load_pretrained(resolve(model.name), device=target)
    done = quantize.run(vggt, variant, dtype=getattr(torch, variant.dtype))
    kept = done.selection.kept if packed_layers(vggt) else {}  # a variant that quantizes nothing keeps nothing back
    making, sqnr_code = _measure(done, target)
    about = {
        "model": {"name": model.name, "label": model.label, "weights_sha256": model.weights_sha256},
        "kept": kept,
        "making": msgspec.to_builtins(making),
        "sqnr_code": sqnr_code,
    }
    checkpoint.save(vggt, path, about=about)
    return _Packed(model=vggt, kept=kept, making=making)


def _measure(done: quantize.Quantization, device: str) -> tuple[Making, str]:
    """What the making cost and lost, and the hash of the code that computed the loss."""
    median, least = _weight_sqnr_db(list(done.sqnr_db.values()))
    making = Making(
        weight_sqnr_db_median=median,
        weight_sqnr_db_min=least,
        seconds=done.seconds,
        peak_memory_bytes=memory.peak_memory_bytes(device),
        provenance=provenance(device),
    )
    return making, _sqnr_code()


def _weight_sqnr_db(values: list[float]) -> tuple[Measured, Measured]:
    """Median and least."""
    return (finite(statistics.median(values)), finite(min(values))) if values else (None, None)


def _sqnr_code() -> str:
    return fingerprint.code("results.decibels:sqnr_db", "quantization.make_checkpoint:_weight_sqnr_db")


def _describe(
    packed: _Packed, model: ModelResult, variant: Variant, key: str, path: Path, *, cached: bool
) -> QuantizeResult:
    layers = packed_layers(packed.model)
    quantized = sum(layer.num_weights for layer in layers.values())
    in_memory = sum(layer.packed_bytes() for layer in layers.values())
    on_disk = sum(size for name, size in tensor_bytes(path).items() if _is_weight_of(name, set(layers)))
    return QuantizeResult(
        **msgspec.structs.asdict(packed.making),
        spec=variant.spec(),
        weights_bytes=checkpoint.memory_bytes(packed.model),
        num_parameters=model.num_parameters,
        quantized_parameters=quantized,
        quantized_share=quantized / model.num_parameters,
        bytes_per_quantized_weight_memory=in_memory / quantized if quantized else None,
        formats=_count_formats(layers, len(packed.kept)),
        kept=[_kept(packed.model, name, reason) for name, reason in packed.kept.items()],
        variant=variant.name,
        key=key,
        checkpoint=str(path.absolute()),
        cached=cached,
        checkpoint_bytes=path.stat().st_size,
        bytes_per_quantized_weight_disk=on_disk / quantized if quantized else None,
    )


def _count_formats(layers: dict[str, Any], num_kept: int) -> dict[str, int]:
    names = [layer.format for layer in layers.values()]
    counts = {name: names.count(name) for name in sorted(set(names))}
    return {**counts, "dense": num_kept} if num_kept else counts


def _kept(vggt: nn.Module, name: str, reason: str) -> KeptLayer:
    size = sum(parameter.numel() for parameter in vggt.get_submodule(name).parameters())
    return KeptLayer(name=name, reason=reason, num_parameters=size)


def _is_weight_of(tensor: str, layers: set[str]) -> bool:
    layer, _, part = tensor.rpartition(".")
    return layer in layers and part != "bias"
