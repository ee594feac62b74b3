"""The quantize stage: model + variant -> a packed checkpoint in the cache, and its sizes."""

import logging
import statistics
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, methods, quantize
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.results.record import finite
from vggt_quant.results.schema import KeptLayer, ModelResult, PackedModel, QuantizeResult
from vggt_quant.results.validation import build
from vggt_quant.runtime import cache_keys, memory
from vggt_quant.runtime.provenance import provenance
from vggt_quant.runtime.tensor_file import tensor_bytes
from vggt_quant.variants import Variant

log = logging.getLogger(__name__)


def make_checkpoint(model: ModelResult, variant: Variant, cache: Path | str, device: str) -> QuantizeResult:
    """Quantize the model, or find that the cache holds, undamaged, what would come out.

    Raises:
        ValueError: Impossible settings, or weights that are not there any more.
        OSError: The cache cannot be written.
    """
    key = cache_keys.checkpoint_key(variant, [model.weights_sha256, model.config], device)
    path = _place(cache_keys.cached(cache, "checkpoints", f"{variant.name}-{key}"), key)
    stored = _find(path)
    return _describe_file(stored or _make(model, variant, path, device), variant, key, path, cached=stored is not None)


def write_checkpoint(model: ModelResult, variant: Variant, path: Path, device: str) -> QuantizeResult:
    """Quantize the model into a file of one's own, in place of what is there.

    Raises:
        ValueError: Impossible settings, or weights that are not there any more.
        OSError: The file cannot be written.
    """
    key = cache_keys.checkpoint_key(variant, [model.weights_sha256, model.config], device)
    return _describe_file(_make(model, variant, path, device), variant, key, path, cached=False)


def _describe_file(made: PackedModel, variant: Variant, key: str, path: Path, *, cached: bool) -> QuantizeResult:
    packed = set(checkpoint.read_manifest(path)["layers"])
    on_disk = sum(size for name, size in tensor_bytes(path).items() if _is_weight_of(name, packed))
    return QuantizeResult(
        **msgspec.structs.asdict(made),
        variant=variant.name,
        key=key,
        checkpoint=str(path.absolute()),
        cached=cached,
        checkpoint_bytes=path.stat().st_size,
        bytes_per_quantized_weight_disk=on_disk / made.quantized_parameters if packed else None,
    )


def _place(path: Path, key: str) -> Path:
    """Where a checkpoint lies or will lie; variants that differ in name or `run` only share the first one's."""
    return next(iter(sorted(path.parent.glob(f"*-{key}{path.suffix}"))), path)


def _find(path: Path) -> PackedModel | None:
    """What a checkpoint in the cache says of itself; None if there is none, or not a sound one."""
    if not path.is_file():
        return None
    try:
        checkpoint.check(path)
        stored = checkpoint.read_manifest(path)["result"]
        # Other versions of this package may have stored more.
        known = {name: stored[name] for name in PackedModel.__struct_fields__ if name in stored}
        return build(PackedModel, known, f"{path}: result")
    except (KeyError, TypeError, ValueError) as error:
        log.warning("Making %s again, which cannot be used: %s", path, error)
        return None


def _make(model: ModelResult, variant: Variant, path: Path, device: str) -> PackedModel:
    supported = methods.config_of(variant).devices
    target = device if device in supported else supported[0]
    vggt = load_pretrained(resolve(model.name), device=target)
    done = quantize.run(vggt, variant, dtype=getattr(torch, variant.dtype))
    result = _describe(vggt, done, model, target)
    about = {
        "model": {"name": model.name, "label": model.label, "weights_sha256": model.weights_sha256},
        "variant": {"name": variant.name, **variant.spec()},
        "result": msgspec.to_builtins(result),
    }
    checkpoint.save(vggt, path, about=about)
    return result


def _describe(vggt: nn.Module, done: quantize.Quantization, model: ModelResult, device: str) -> PackedModel:
    layers = packed_layers(vggt)
    quantized = sum(layer.num_weights for layer in layers.values())
    kept = done.selection.kept if layers else {}  # a variant that quantizes nothing keeps nothing back either
    return PackedModel(
        spec=done.variant.spec(),
        weights_bytes=checkpoint.memory_bytes(vggt),
        num_parameters=model.num_parameters,
        quantized_parameters=quantized,
        quantized_share=quantized / model.num_parameters,
        bytes_per_quantized_weight_memory=(
            sum(layer.packed_bytes() for layer in layers.values()) / quantized if quantized else None
        ),
        formats=_count_formats(layers, len(kept)),
        kept=[_kept(vggt, name, reason) for name, reason in kept.items()],
        weight_sqnr_db_median=finite(statistics.median(done.sqnr_db.values())) if done.sqnr_db else None,
        weight_sqnr_db_min=finite(min(done.sqnr_db.values())) if done.sqnr_db else None,
        seconds=done.seconds,
        peak_memory_bytes=memory.peak_memory_bytes(device),
        provenance=provenance(device),
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
