"""The fp32 outputs that every variant is compared with: computed once per scene and cached."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant.inference.engine import Engine, ready
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.results.scene_schema import OutputInfo, SceneReference
from vggt_quant.results.schema import ImagesResult, ModelResult, ReferenceResult
from vggt_quant.runtime import cache_keys
from vggt_quant.runtime.progress import track
from vggt_quant.runtime.provenance import provenance
from vggt_quant.runtime.tensor_file import TensorFileError, read_tensors, write_tensors

log = logging.getLogger(__name__)


def make_reference(model: ModelResult, images: ImagesResult, cache: Path | str, device: str) -> ReferenceResult:
    """Run the original model in float32 (TF32 off) on the scenes whose outputs the cache does not hold undamaged.

    Raises:
        ValueError: Weights or photos that are not there any more, or outputs that are not finite.
        OSError: The cache cannot be written.
    """
    started = time.perf_counter()
    engine: Engine | None = None
    scenes = []
    for scene in track(images.scenes, "fp32 reference"):
        key = cache_keys.reference_key([model.weights_sha256, model.config], [scene.tensor_sha256, scene.shape], device)
        path = cache_keys.cached(cache, "reference", key)
        is_cached = _is_sound(path)
        if not is_cached:
            engine = engine or ready(load_pretrained(resolve(model.name), device=device), device)
            _store(engine.run(read_tensors(scene.path)["images"]), path, scene.name)
        scenes.append(SceneReference(scene=scene.name, key=key, path=str(path.absolute()), cached=is_cached))
    return ReferenceResult(
        scenes=scenes,
        outputs={name: describe(value) for name, value in load_outputs(scenes[0].path).items()},
        seconds=time.perf_counter() - started,
        provenance=provenance(device),
    )


def _is_sound(path: Path) -> bool:
    """Whether the cache holds these outputs, undamaged."""
    if not path.is_file():
        return False
    try:
        load_outputs(path)
    except TensorFileError as error:
        log.warning("Making %s again, which cannot be used: %s", path, error)
        return False
    return True


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
    tensors: dict[str, Tensor] = {}
    lists: dict[str, list[Tensor]] = {}
    for name, tensor in sorted(read_tensors(path).items()):
        base, _, index = name.partition("#")
        if index:
            lists.setdefault(base, []).append(tensor)
        else:
            tensors[name] = tensor
    return {**tensors, **lists}


def _store(outputs: Mapping[str, Tensor | list[Tensor]], path: Path, scene: str) -> None:
    """Write the outputs whole or not at all; entry i of a list is stored as `name#i`."""
    tensors: dict[str, Tensor] = {}
    for name, value in outputs.items():
        entries = (
            {f"{name}#{i:03d}": entry for i, entry in enumerate(value)} if isinstance(value, list) else {name: value}
        )
        tensors.update({key: entry.detach().cpu().contiguous().clone() for key, entry in entries.items()})
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(
            f"The fp32 reference of {scene} is not finite in {', '.join(bad)}; nothing can be compared with it."
        )
    write_tensors(tensors, path)
