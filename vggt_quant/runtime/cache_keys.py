"""The dependencies of each stage: code hashes for the workflow, and the keys of cached files. No torch.

A key contains everything that determines the numbers in a file: settings, hashes of the inputs, versions, and the code
that the computing function can reach (`fingerprint`). So an edit repeats what depends on it and nothing else. Reachable
code that does not affect the numbers is excluded by name, with the reason: `NOT_IN_A_CHECKPOINT` and the like.

A key does not contain the model of the processor or GPU. Its device type is enough: weights are rounded alike
everywhere, and the last bits of the float32 outputs are far smaller than the compared errors. It does not contain the
versions of Python and safetensors either, which decide where a number is stored, not its value.
"""

import hashlib
import importlib.metadata
from collections.abc import Collection, Iterable
from pathlib import Path

from vggt_quant.runtime import fingerprint, gpus, machine, provenance
from vggt_quant.runtime.fingerprint import PACKAGE, digest, files_in
from vggt_quant.runtime.source_literals import BACKENDS, FORMATS, declared
from vggt_quant.variants import RunSettings, Variant

METHODS = "quantization.methods"

NOT_IN_A_CHECKPOINT = {
    "quantization.make_checkpoint:_measure": "what the making cost and lost, not what was made",
    "results": "how that is written down, and how settings are checked; the checked settings are in the key",
    "variants": "what it reads is in the key, setting by setting",
    "runtime.progress": "bars on the terminal",
    "model.config": "the sizes that it reads are in the key",
    "model.weights.hub": "where a weight file comes from; its hash is in the key",
}
"""What the code that makes a checkpoint reaches and what yet decides no byte of a tensor -> why not."""

NOT_RUN_FOR_A_CHECKPOINT = {"model": "nothing runs the model; which of its layers are Linears decides what is packed"}
"""Packages of which only what builds their modules is in a checkpoint's key, not `forward` -> why not."""

NOT_IN_A_QUANTIZE_RESULT = {
    "runtime.progress": "bars on the terminal",
    "runtime.provenance": "where and when it was made",
    "runtime.cache_keys": "names the file",
    "model.weights.hub": "where a weight file comes from; its hash is in the key",
}
"""As for checkpoints, of the figures of the quantize step."""

NOT_IN_A_REFERENCE = {
    "results": "how the outputs are described, not what they are",
    "variants": "float32 outputs are made by the defaults: plain float32",
    "runtime.progress": "bars on the terminal",
    "runtime.provenance": "where and when they were made",
    "runtime.cache_keys": "names the file",
    "inference.fast": "float32 runs on the model's own modules",
    "inference.attention": "the fast engine calls it",
    "quantization": "nothing is packed",
    "kernels": "packed layers call them",
    "model.weights.hub": "where a weight file comes from; its hash is in the key",
}
"""As for checkpoints, of the float32 outputs."""

NOT_MEASURED = {
    "runtime.progress": "bars on the terminal",
    "runtime.provenance": "where and when it was measured",
    "runtime.cache_keys": "names the file of the float32 outputs",
}
"""As for checkpoints, of what is measured."""

OF_THE_PROCESS = ("runtime.memory:keep_freed_memory", "runtime.memory:let_segments_grow")
"""What commands set in a timing process before it computes anything; times and peak memory depend on it."""


def quantize_code(variant: Variant) -> str:
    """Hash of the settings and of the code that turns stored weights into the tensors of a checkpoint.

    Raises:
        ValueError: A method or format that does not exist.
    """
    entries = ["quantization.make_checkpoint:_make"]
    return digest([variant.spec(), _code(variant, entries, NOT_IN_A_CHECKPOINT, NOT_RUN_FOR_A_CHECKPOINT)])


def description_code(variant: Variant) -> str:
    """Hash of all that turns stored weights into the figures of the quantize step: sizes, shares, SQNR of weights.

    No checkpoint's key holds it, since figures decide no tensor; a checkpoint in the cache is then described again.
    """
    entries = ["quantization.make_checkpoint:make_checkpoint"]
    return digest([variant.spec(), _code(variant, entries, NOT_IN_A_QUANTIZE_RESULT, NOT_RUN_FOR_A_CHECKPOINT)])


def accuracy_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into deviations."""
    return digest([_run(variant), _code(variant, ["evaluation.accuracy:measure_accuracy"], NOT_MEASURED)])


def speed_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into milliseconds."""
    return digest([_run(variant), _code(variant, ["benchmark.timing:measure_speed", *OF_THE_PROCESS], NOT_MEASURED)])


def sweep_code(variant: Variant) -> str:
    """Hash of all that turns weights into a row of the speed table."""
    entries = ["benchmark.sweep:measure_sweep", *OF_THE_PROCESS, "data.random_photos:prepare"]
    code = _code(variant, entries, NOT_MEASURED)
    return digest([_run(variant), code, quantize_code(variant), reference_code()])


def reference_code() -> str:
    """Hash of all that decides the float32 outputs."""
    return fingerprint.code("evaluation.reference:make_reference", without=NOT_IN_A_REFERENCE)


def checkpoint_key(variant: Variant, model: list[object], device: str) -> str:
    """Name of a cached checkpoint; `model` is the hash of the weights and the config that gives them their meaning."""
    return digest([quantize_code(variant), model, provenance.torch_version(), device])[:24]


def reference_key(model: list[object], images: list[object], device: str) -> str:
    """Name of the cached float32 outputs; `images` is the hash of the tensor's values, and its shape."""
    return digest([reference_code(), model, images, provenance.torch_version(), device])[:24]


def stage_codes(variants: dict[str, Variant], device: str) -> dict[str, object]:
    """All that the workflow hands its rules as parameters, so that Snakemake sees what changed."""
    environment = {"torch": provenance.torch_version(), "device": device}
    kernels = provenance.kernel_libraries()
    comparison = {**environment, **_versions("numpy", "scikit-image", "scipy"), "kernels": kernels}
    here = {**environment, "device_name": _kind_of(device), "kernels": kernels}
    reference = fingerprint.code("results.schema:ReferenceResult")
    scenes = fingerprint.code("data.prepare:prepare_images", "data.prepare:prepare_calibration")
    return {
        "device": device,
        "model": digest([fingerprint.code("data.prepare:prepare_model"), _bundled_weights()]),
        "images": digest([scenes, _versions("numpy", "pillow")]),
        "reference": digest([reference_code(), reference, environment]),
        "quantize": {
            name: digest([quantize_code(v), description_code(v), environment]) for name, v in variants.items()
        },
        "accuracy": {name: digest([accuracy_code(v), comparison]) for name, v in variants.items()},
        "speed": {name: digest([speed_code(v), here]) for name, v in variants.items()},
        "report": fingerprint.code("report.collect"),
    }


def _code(variant: Variant, entries: list[str], without: Collection[str], never_run: Collection[str] = ()) -> str:
    return fingerprint.code(*entries, without=without, never_run=never_run, chosen=files_of(variant))


def files_of(variant: Variant) -> dict[str, list[str]]:
    """Of the packages whose files are found by name, those files that a variant uses.

    Raises:
        ValueError: A method or format that does not exist.
    """
    method = _known(variant, "method", variant.method)
    return {METHODS: [method], FORMATS: formats_of(variant), BACKENDS: backends_of(variant)}


def backends_of(variant: Variant) -> list[str]:
    """The attention backends that may run: the one that its settings name, and those with a rank, one of which runs."""
    ranked = {name for name, rank in declared(BACKENDS, "rank").items() if rank is not None}
    return [name for name in files_in(BACKENDS) if name == variant.run.attention or name in ranked]


def formats_of(variant: Variant) -> list[str]:
    """The formats that a variant's layers may be in: those that its settings name, else those that its method reaches.

    Raises:
        ValueError: A method or format that does not exist.
    """
    method = f"{METHODS}.{_known(variant, 'method', variant.method)}"
    if "format" in variant.config:
        _known(variant, "format", variant.config["format"])
    files = files_in(FORMATS)
    named = [name for name in _strings(variant.config) if name in files]
    reached = {
        piece.partition(":")[0] for piece in fingerprint.closure(method, chosen={FORMATS: named} if named else {})
    }
    return [name for name in files if f"{FORMATS}.{name}" in reached]


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def _known(variant: Variant, kind: str, name: object) -> str:
    known = files_in(METHODS if kind == "method" else FORMATS)
    if name not in known:
        raise ValueError(f"Variant {variant.name}: there is no {kind} {name!r}; there are {', '.join(known)}.")
    return str(name)


def _run(variant: Variant) -> dict[str, object]:
    return {name: getattr(variant.run, name) for name in RunSettings.__struct_fields__}


def _kind_of(device: str) -> str | None:
    """Which processor or GPU this machine has; None where the GPU is another machine's."""
    return None if device == "cuda" and not gpus.gpu_names() else machine.device_name(device)


def _bundled_weights() -> list[str]:
    """What the small model in the package holds, which no setting of a run names as a file."""
    files = sorted((PACKAGE / "model" / "tiny").glob("*.safetensors"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def _versions(*distributions: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in distributions}


def cached(cache: Path | str, kind: str, name: str) -> Path:
    """Path of an entry in the cache, which may be a network volume."""
    return Path(cache) / kind / f"{name}.safetensors"
