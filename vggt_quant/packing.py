"""The quantize stage: model + variant -> a packed checkpoint in the cache, and what it weighs."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vggt_quant import checkpoint, formats, keys, machine, methods, quantize
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.provenance import provenance
from vggt_quant.results import KeptLayer, ModelResult, QuantizeResult, finite
from vggt_quant.typed_json import build
from vggt_quant.variants import Variant


def make_checkpoint(model: ModelResult, variant: Variant, cache: Path | str, device: str) -> QuantizeResult:
    """Quantize the model, or find that the cache holds what would come out.

    Raises:
        ValueError: Impossible settings, or weights that are not there any more.
        OSError: The cache cannot be written.
    """
    key = keys.checkpoint_key(variant, model.weights_sha256, device)
    path = keys.cached(cache, "checkpoints", f"{variant.name}-{key}")
    was_cached = path.is_file()
    if not was_cached:
        _make(model, variant, path, device)
    stored = build(QuantizeResult, checkpoint.read_manifest(path)["result"])
    packed = set(checkpoint.read_manifest(path)["layers"])
    on_disk = {name: size for name, size in checkpoint.tensor_bytes(path).items() if _is_weight_of(name, packed)}
    quantized = stored.quantized_parameters
    return dataclasses.replace(
        stored,
        variant=variant.name,
        key=key,
        checkpoint=str(path.absolute()),
        cached=was_cached,
        checkpoint_bytes=path.stat().st_size,
        bytes_per_quantized_weight_disk=sum(on_disk.values()) / quantized if quantized else None,
    )


def _make(model: ModelResult, variant: Variant, path: Path, device: str) -> None:
    supported = getattr(methods.get(variant.method), "DEVICES", (device,))
    place = device if device in supported else supported[0]
    vggt = load_pretrained(resolve(model.name), device=place)
    done = quantize.run(vggt, variant, dtype=getattr(torch, variant.dtype))
    result = _describe(vggt, done, model, place)
    about = {
        "model": {"name": model.name, "label": model.label, "weights_sha256": model.weights_sha256},
        "variant": {"name": variant.name, **variant.spec()},
        "result": dataclasses.asdict(result),
    }
    checkpoint.save(vggt, path, about=about)


def _describe(vggt: nn.Module, done: quantize.Quantization, model: ModelResult, place: str) -> QuantizeResult:
    layers = formats.packed_layers(vggt)
    quantized = sum(layer.num_weights for layer in layers.values())
    kept = [_kept(vggt, name, reason) for name, reason in done.selection.kept.items()]
    if not layers:
        kept = []
    return QuantizeResult(
        variant=done.variant.name,
        outcome="ok",
        error=None,
        spec=done.variant.spec(),
        weights_bytes=checkpoint.memory_bytes(vggt),
        num_parameters=model.num_parameters,
        quantized_parameters=quantized,
        quantized_share=quantized / model.num_parameters,
        bytes_per_quantized_weight_memory=(
            sum(layer.packed_bytes() for layer in layers.values()) / quantized if quantized else None
        ),
        formats=_count_formats(layers, len(kept)),
        kept=kept,
        weight_sqnr_db_median=done.sqnr_db_median,
        weight_sqnr_db_min=finite(min(done.sqnr_db.values())) if done.sqnr_db else None,
        seconds=done.seconds,
        peak_memory_bytes=_peak_memory_bytes(place),
        provenance=provenance(place),
    )


def _count_formats(layers: dict[str, Any], num_kept: int) -> dict[str, int]:
    names = [layer.format for layer in layers.values()]
    counts = {name: names.count(name) for name in sorted(set(names))}
    return {**counts, "dense": num_kept} if num_kept else counts


def _kept(vggt: nn.Module, name: str, reason: str) -> KeptLayer:
    size = sum(parameter.numel() for parameter in vggt.get_submodule(name).parameters())
    return KeptLayer(name=name, reason=reason, num_parameters=size)


def _peak_memory_bytes(place: str) -> int:
    return torch.cuda.max_memory_allocated() if place == "cuda" else machine.peak_resident_bytes()


def _is_weight_of(tensor: str, layers: set[str]) -> bool:
    layer, _, part = tensor.rpartition(".")
    return layer in layers and part != "bias"
