"""Packed checkpoints: one tensor file whose manifest names the format of each layer.

The manifest (see `tensor_file` for the checksums that it has besides):

    version    1
    model      config of the VGGT (null for any other module), its label and the hash of the weights it was made from
    variant    what made it (`made_by`): its name, settings and `run`, which older files lack; null if that is not known
    layers     packed layer -> {format, sizes, ...}; all else is dense and stored under its own name
    aliases    second name of a tensor or layer -> the name it is stored under

Loading needs the formats, but not the methods. The model is built on the meta device, packed layers take the stored
tensors, and no layer is ever expanded to full precision.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggt_quant.model import VGGT, VGGTConfig
from vggt_quant.model.device import pick_device
from vggt_quant.quantization import formats, made_by
from vggt_quant.quantization.formats.base import packed_layers, replace
from vggt_quant.runtime import tensor_file
from vggt_quant.runtime.tensor_file import TensorFileError

VERSION = 1
SHAPE_OF_MANIFEST = {"layers": dict, "aliases": dict, "model": dict}


class CheckpointError(ValueError):
    """A packed checkpoint that cannot be used; the sentence names the file and the cure."""


def save(model: nn.Module, path: Path | str, *, about: dict[str, Any] | None = None) -> None:
    """Write a packed model to `path`, whole or not at all; also over the file that it was loaded from.

    Args:
        model: A model with packed layers, dense layers or both, on any device.
        path: A `.safetensors` file to make or replace.
        about: Further entries of the manifest, e.g. {"model": {"label": ...}}. `variant` is what the model remembers
            (`made_by`) unless it is given here.

    Raises:
        ValueError: The model holds what a tensor file cannot: tensors without values, or state that is no tensor.
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    tensors, layers, aliases = _collect(model)
    about = dict(about or {})
    manifest = {
        "version": VERSION,
        "variant": about.pop("variant", made_by.remembered(model)),
        "model": {**about.pop("model", {}), "config": model.config.to_dict() if isinstance(model, VGGT) else None},
        **about,
        "layers": layers,
        "aliases": aliases,
    }
    tensor_file.write_tensors(tensors, path, manifest)


def read_manifest(path: Path | str) -> Mapping[str, Any]:
    """The manifest of a packed checkpoint, not to be changed.

    Raises:
        CheckpointError: Missing, damaged, foreign, or of another version.
    """
    try:
        manifest = tensor_file.read_manifest(path)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    if "version" in manifest and manifest["version"] != VERSION:
        found = manifest["version"]
        raise CheckpointError(f"{path} has manifest version {found}; this package reads {VERSION}. Quantize again.")
    wrong = [key for key, kind in SHAPE_OF_MANIFEST.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        raise CheckpointError(
            f"{path} is no packed checkpoint: its manifest has no valid {wrong[0]!r}. Quantize again."
        )
    return manifest


def check(path: Path | str) -> None:
    """Compare every checksum of the file, unless this process has done so since the file changed.

    Raises:
        CheckpointError: Missing, damaged or foreign.
    """
    read_manifest(path)
    try:
        tensor_file.check(path)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error


def is_packed(path: Path | str) -> bool:
    """Whether a file says of itself that it is a packed checkpoint; whether that is sound, loading will tell."""
    return tensor_file.has_manifest(path)


def load_packed(path: Path | str, *, device: str | torch.device = "cpu") -> VGGT:
    """Open a packed VGGT checkpoint.

    Raises:
        CheckpointError: Damaged or foreign file, or one that holds another module than VGGT.
    """
    config = read_manifest(path)["model"].get("config")
    if config is None:
        raise CheckpointError(f"{path} holds no VGGT; build its module yourself and call load_into(module, path).")
    try:
        with torch.device("meta"):
            model = VGGT(VGGTConfig.from_dict(config))
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} describes no VGGT that this package knows ({error}); quantize again.") from error
    load_into(model, path, device=device)
    return model.eval().requires_grad_(False)


def load_into(model: nn.Module, path: Path | str, *, device: str | torch.device = "cpu") -> nn.Module:
    """Fill a module of the same architecture, best built on the meta device, from a packed checkpoint.

    Raises:
        CheckpointError: Damaged file, or names and shapes that do not fit `model`, which may then be filled in part.
    """
    manifest, device = read_manifest(path), pick_device(device)
    layers, aliases = manifest["layers"], manifest["aliases"]
    dense, packed = _sort(_read_tensors(path, device), layers)
    _assign_dense(model, dense, manifest, path)
    for name, fields in layers.items():
        _replace(model, name, fields, packed.pop(name), path)
    for alias, name in aliases.items():
        if name in layers:
            model.set_submodule(alias, model.get_submodule(name))
    empty = [name for name, tensor in _named_tensors(model) if tensor.is_meta]
    if empty:
        raise CheckpointError(
            f"{path} holds no values for {empty[0]}, a buffer that its module does not save; build the module on the "
            "CPU and not on the meta device."
        )
    variant = manifest.get("variant")
    made_by.remember(model, variant if isinstance(variant, dict) else None)
    return model


def memory_bytes(model: nn.Module) -> int:
    """Bytes of every parameter, buffer and packed object, storage that is shared counted once."""
    storages = [tensor.untyped_storage() for _, tensor in _named_tensors(model)]
    visible = {storage.data_ptr(): storage.nbytes() for storage in storages}
    layers = set(packed_layers(model).values())
    return sum(visible.values()) + sum(layer.hidden_bytes() for layer in layers)


def _named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _collect(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors to store, fields of packed layers, and second names of either."""
    tensors, layers, aliases = {}, {}, {}
    first_name: dict[Any, str] = {}
    for name, layer in packed_layers(model).items():
        if not name:
            raise ValueError("The model is itself a packed layer; wrap it in nn.Sequential, then save.")
        if first_name.setdefault(layer, name) == name:
            layers[name] = layer.fields()
            tensors.update({f"{name}.{key}": value for key, value in layer.tensors().items()})
        else:
            aliases[name] = first_name[layer]
    for name, tensor in _dense_state(model).items():
        if first_name.setdefault(_memory(tensor), name) == name:
            tensors[name] = tensor
        else:
            aliases[name] = first_name[_memory(tensor)]
    return _apart(tensors), layers, aliases


def _dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without packed layers; asked module by module, because torch's packed ones answer slowly."""
    state: dict[str, Any] = {}
    inside = {module for layer in packed_layers(model).values() for module in layer.modules()}
    for name, module in model.named_modules(remove_duplicate=False):
        if module not in inside:
            module._save_to_state_dict(state, f"{name}." if name else "", False)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}; a checkpoint stores tensors only.")
        if value.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; load the weights, then save.")
    return state


def _memory(tensor: Tensor) -> Any:
    """What is equal for two names of the same numbers; an empty tensor is equal to none but itself."""
    if tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous on the CPU, copied where two of them lie in the same memory."""
    used, apart = set(), {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in used else tensor
        used.add(memory)
    return apart


def _read_tensors(path: Path | str, device: str | torch.device) -> dict[str, Tensor]:
    try:
        return tensor_file.read_tensors(path, device)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error


def _sort(tensors: dict[str, Tensor], layers: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Dense tensors by full name, and those of packed layers by layer and short name."""
    dense: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {name: {} for name in layers}
    for key, tensor in tensors.items():
        layer, _, part = key.rpartition(".")
        if layer in packed:
            packed[layer][part] = tensor
        else:
            dense[key] = tensor
    return dense, packed


def _replace(model: nn.Module, name: str, fields: Any, tensors: dict[str, Tensor], path: Path | str) -> None:
    try:
        packed = formats.layer(fields["format"]).from_tensors(fields, tensors)
        old = model.get_submodule(name)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the packed layer {name} does not fit: {error}") from error
    wanted = packed.in_features, packed.out_features
    if isinstance(old, nn.Linear) and (old.in_features, old.out_features) != wanted:
        found = f"{old.in_features} -> {old.out_features}"
        raise CheckpointError(f"{path}: {name} is {wanted[0]} -> {wanted[1]}, but the model has {found} there.")
    replace(model, name, packed)


def _assign_dense(model: nn.Module, dense: dict[str, Tensor], manifest: Mapping[str, Any], path: Path | str) -> None:
    """Hand the dense tensors over, tied ones as one object."""
    layers, parameters = manifest["layers"], {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for alias, name in manifest["aliases"].items():
        if name in dense:
            if {alias, name} <= parameters and not isinstance(dense[name], nn.Parameter):
                dense[name] = nn.Parameter(dense[name], requires_grad=False)
            dense[alias] = dense[name]
        elif name not in layers:
            raise CheckpointError(f"{path} is damaged: {alias} stands for {name}, which it lacks; make it again.")
    try:
        result = model.load_state_dict(dense, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from error
    packed = tuple(f"{name}." for name in (*layers, *manifest["aliases"]))
    missing = [key for key in result.missing_keys if not key.startswith(packed)]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"{path} does not fit the model: {len(missing)} tensors are missing (e.g. {missing[:2]}) and "
            f"{len(result.unexpected_keys)} are unknown (e.g. {result.unexpected_keys[:2]})."
        )
