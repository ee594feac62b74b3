"""Packed checkpoints: one safetensors file whose header says, layer by layer, which format it is in.

The header's `vggt_quant` entry is the manifest, JSON:

    version    1
    model      config of the VGGT (null for any other module), its label and the hash of the weights it was made from
    variant    the settings that made it, for people; loading never looks at them
    layers     packed layer -> {format, sizes, ...}; all else is dense and stored under its own name
    aliases    second name of a tensor or layer -> the name it is stored under
    crc32      tensor -> checksum of its bytes

Loading needs the formats and never the methods. The model is built on the meta device, packed layers take their
tensors as they are, and nothing is ever held in full precision.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vggt_quant import formats
from vggt_quant.model import VGGT, VGGTConfig
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.tensor_file import write_tensors

VERSION = 1
MANIFEST = "vggt_quant"


class CheckpointError(ValueError):
    """A packed checkpoint that cannot be used; the sentence names the file and the cure."""


def save(model: nn.Module, path: Path | str, *, about: dict[str, Any] | None = None) -> None:
    """Write a packed model to `path`, whole or not at all.

    Args:
        model: A model with packed layers, dense layers or both, on any device.
        path: A `.safetensors` file to make or replace.
        about: Further entries of the manifest, e.g. {"model": {"label": ...}, "variant": {...}}.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    tensors, layers, aliases = _collect(model)
    about = dict(about or {})
    config = model.config.to_dict() if isinstance(model, VGGT) else None
    manifest = {
        "version": VERSION,
        "variant": about.pop("variant", None),
        "model": {**about.pop("model", {}), "config": config},
        **about,
        "layers": layers,
        "aliases": aliases,
        "crc32": {name: _crc32(tensor) for name, tensor in tensors.items()},
    }
    write_tensors(tensors, path, {"format": "pt", MANIFEST: json.dumps(manifest)})


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The manifest of a packed checkpoint.

    Raises:
        CheckpointError: Missing, damaged, foreign, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(MANIFEST)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file ({error}); make it again.") from error
    if text is None:
        raise CheckpointError(f"{path} is no packed checkpoint of vggt_quant: its header has no {MANIFEST!r} entry.")
    manifest = json.loads(text)
    if manifest.get("version") != VERSION:
        found = manifest.get("version")
        raise CheckpointError(f"{path} has manifest version {found}; this package reads {VERSION}. Quantize again.")
    return manifest


def is_packed(path: Path | str) -> bool:
    """Whether `path` is a file with our manifest in its header; a damaged or foreign file is not."""
    try:
        read_manifest(path)
    except CheckpointError:
        return False
    return True


def load(name_or_path: Path | str, *, device: str | torch.device = "cpu") -> VGGT:
    """Open a model by whatever names it, ready to run: eval mode, no gradients.

    Args:
        name_or_path: A packed checkpoint, a hub id ("facebook/VGGT-1B"), a weight file or folder, or a small model with
            seeded random weights ("small-random").
        device: Where its tensors go.

    Raises:
        ValueError: Nothing of that name, or something that is not VGGT; the sentence says what to do.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors" and path.is_file() and is_packed(path):
        return load_packed(path, device=device)
    return load_pretrained(resolve(str(name_or_path)), device=device)


def load_packed(path: Path | str, *, device: str | torch.device = "cpu") -> VGGT:
    """Open a packed VGGT checkpoint.

    Raises:
        CheckpointError: Damaged or foreign file, or one that holds another module than VGGT.
    """
    config = read_manifest(path)["model"]["config"]
    if config is None:
        raise CheckpointError(f"{path} holds no VGGT; build its module yourself and call load_into(module, path).")
    with torch.device("meta"):
        model = VGGT(VGGTConfig.from_dict(config))
    return load_into(model, path, device=device).eval().requires_grad_(False)


def load_into(model: nn.Module, path: Path | str, *, device: str | torch.device = "cpu") -> nn.Module:
    """Fill a module of the same architecture, best built on the meta device, from a packed checkpoint.

    Raises:
        CheckpointError: Damaged file, or names and shapes that do not fit `model`.
    """
    manifest = read_manifest(path)
    layers, aliases = manifest["layers"], manifest["aliases"]
    tensors = _read_tensors(path, manifest["crc32"], torch.device(device))
    packed = {name: _take(tensors, name) for name in layers}
    dense = {**tensors, **{alias: tensors[name] for alias, name in aliases.items() if name not in layers}}
    _assign_dense(model, dense, path, expect_missing=[*layers, *(a for a, name in aliases.items() if name in layers)])
    for name, fields in layers.items():
        _replace(model, name, fields, packed[name], path)
    for alias, name in aliases.items():
        if name in layers:
            model.set_submodule(alias, model.get_submodule(name))
    return model


def tensor_bytes(path: Path | str) -> dict[str, int]:
    """Bytes on disk of every tensor of a safetensors file, from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {k: v["data_offsets"][1] - v["data_offsets"][0] for k, v in header.items() if k != "__metadata__"}


def memory_bytes(model: nn.Module) -> int:
    """Bytes of every parameter, buffer and packed object, storage that is shared counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    opaque = [x for x in set(formats.packed_layers(model).values()) if not any(True for _ in x.buffers())]
    for layer in opaque:
        tensors += layer.tensors().values()
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _collect(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors to store, fields of packed layers, and second names of either."""
    tensors, layers, aliases, seen = {}, {}, {}, {}
    for name, layer in formats.packed_layers(model).items():
        if id(layer) in seen:
            aliases[name] = seen[id(layer)]
            continue
        seen[id(layer)] = name
        layers[name] = layer.fields()
        tensors.update({f"{name}.{key}": value for key, value in layer.tensors().items()})
    packed = tuple(f"{name}." for name in (*layers, *aliases))
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or name.startswith(packed):
            continue
        if id(tensor) in seen:
            aliases[name] = seen[id(tensor)]
            continue
        seen[id(tensor)] = name
        tensors[name] = tensor
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, layers, aliases


def _crc32(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else 0


def _read_tensors(path: Path | str, crc32: dict[str, int], device: torch.device) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(crc32):
            raise CheckpointError(f"{path} is damaged: its tensors are not those of its manifest; make it again.")
        for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            tensor = file.get_tensor(name)
            if _crc32(tensor) != crc32[name]:
                raise CheckpointError(f"{path} is damaged: {name} does not match its checksum; make it again.")
            tensors[name] = tensor.to(device)
    return tensors


def _replace(model: nn.Module, name: str, fields: dict[str, Any], tensors: dict[str, Tensor], path: Any) -> None:
    try:
        packed = formats.get(fields["format"]).PackedLinear.from_tensors(fields, tensors)
        old = model.get_submodule(name)
    except (AttributeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the packed layer {name} does not fit: {error}") from error
    wanted = fields["in_features"], fields["out_features"]
    if isinstance(old, nn.Linear) and (old.in_features, old.out_features) != wanted:
        found = f"{old.in_features} -> {old.out_features}"
        raise CheckpointError(f"{path}: {name} is {wanted[0]} -> {wanted[1]}, but the model has {found} there.")
    model.set_submodule(name, packed)


def _take(tensors: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """Take a packed layer's tensors out of the file's, under their short names."""
    prefix = layer + "."
    return {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}


def _assign_dense(model: nn.Module, dense: dict[str, Tensor], path: Any, *, expect_missing: list[str]) -> None:
    try:
        result = model.load_state_dict(dense, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from error
    expected = tuple(f"{name}." for name in expect_missing)
    missing = [key for key in result.missing_keys if not key.startswith(expected)]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"{path} does not fit the model: {len(missing)} tensors are missing (e.g. {missing[:2]}) and "
            f"{len(result.unexpected_keys)} are unknown (e.g. {result.unexpected_keys[:2]})."
        )
