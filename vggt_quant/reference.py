"""The fp32 outputs that every variant is compared with: computed once, cached under all that decides them."""

import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant import keys
from vggt_quant.engine import ready
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.provenance import provenance
from vggt_quant.results import ImagesResult, ModelResult, OutputInfo, ReferenceResult
from vggt_quant.tensor_file import TensorFileError, read_tensors, write_tensors

log = logging.getLogger(__name__)


def make_reference(model: ModelResult, images: ImagesResult, cache: Path | str, device: str) -> ReferenceResult:
    """Run the original model in float32 (TF32 off), or find that the cache holds, undamaged, what it would give.

    Raises:
        ValueError: Weights or photos that are not there any more, or outputs that are not finite.
        OSError: The cache cannot be written.
    """
    started = time.perf_counter()
    model_id, images_id = [model.weights_sha256, model.config], [images.tensor_sha256, images.shape]
    key = keys.reference_key(model_id, images_id, device)
    path = keys.cached(cache, "reference", key)
    stored = _find(path)
    if stored is None:
        engine = ready(load_pretrained(resolve(model.name), device=device), device)
        _store(engine.run(read_tensors(images.path)["images"]), path)
    return ReferenceResult(
        key=key,
        path=str(path.absolute()),
        cached=stored is not None,
        outputs={name: describe(value) for name, value in (stored or load_outputs(path)).items()},
        seconds=time.perf_counter() - started,
        provenance=provenance(device),
    )


def _find(path: Path) -> dict[str, Tensor | list[Tensor]] | None:
    """The outputs in the cache; None if there are none, or no sound ones."""
    if not path.is_file():
        return None
    try:
        return load_outputs(path)
    except TensorFileError as error:
        log.warning("Making %s again, which cannot be used: %s", path, error)
        return None


def describe(value: object) -> OutputInfo:
    """Type, shape and dtype of one output, for the log and the report."""
    if isinstance(value, Tensor):
        return OutputInfo(type="tensor", shape=list(value.shape), dtype=str(value.dtype).removeprefix("torch."))
    if isinstance(value, list | tuple):
        return OutputInfo(type=f"list of {len(value)}", shape=None, dtype=None)
    return OutputInfo(type=type(value).__name__, shape=None, dtype=None)


def load_outputs(path: Path | str) -> dict[str, Tensor | list[Tensor]]:
    """The output dictionary as the model gave it, lists of tensors included, on the CPU.

    Raises:
        TensorFileError: Missing or damaged.
    """
    outputs: dict[str, Tensor | list[Tensor]] = {}
    for name, tensor in sorted(read_tensors(path).items()):
        base, _, index = name.partition("#")
        if index:
            outputs.setdefault(base, []).append(tensor)
        else:
            outputs[name] = tensor
    return outputs


def _store(outputs: dict, path: Path) -> None:
    """Write the outputs whole or not at all; entry i of a list is stored as `name#i`."""
    tensors: dict[str, Tensor] = {}
    for name, value in outputs.items():
        entries = (
            {f"{name}#{i:03d}": entry for i, entry in enumerate(value)} if isinstance(value, list) else {name: value}
        )
        tensors.update({key: entry.detach().cpu().contiguous().clone() for key, entry in entries.items()})
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"The fp32 reference is not finite in {', '.join(bad)}; nothing can be compared with it.")
    write_tensors(tensors, path)
