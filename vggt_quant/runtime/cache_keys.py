"""Which stage depends on what: code hashes that the workflow watches, and the keys of cached files. No torch.

A key holds everything that decides the numbers in a file and nothing else: an edit reruns exactly what depends on it.
Left out with reason: which processor or GPU it is (the kind is enough: weights are rounded alike everywhere, and the
last bits of an fp32 reference are far below what is measured against it); the model's sources for checkpoints (names
and shapes of weights are the stored file's, whose hash is in the key, and so are the model's settings); the versions of
Python and safetensors (they decide where a number lies in a file, not which).
"""

import hashlib
import importlib.metadata
from pathlib import Path

from msgspec import structs

from vggt_quant.runtime import gpus, machine, provenance
from vggt_quant.runtime.fingerprint import PACKAGE, digest, own_sources, sources
from vggt_quant.variants import Variant

PACKING = (
    *("quantization.make_checkpoint", "quantization.quantize", "quantization.checkpoint", "quantization.policy"),
    *("runtime.tensor_file", "model.weights.pretrained"),
)
"""What every packed checkpoint goes through, from stored weights to stored weights; what they import besides decides no
number of it. `grid` comes with the methods that use it."""

REFERENCE = ("evaluation.reference", "inference.engine", "runtime.tensor_file", "model.weights.pretrained")
"""What the fp32 outputs go through, besides the model with all its imports."""


def quantize_code(variant: Variant) -> str:
    """Hash of the settings, the method, the format, its kernels and the shared packing code.

    Raises:
        ValueError: A method or format that does not exist.
    """
    _expect_file(variant, "method", variant.method)
    if "format" in variant.config:
        _expect_file(variant, "format", variant.config["format"])
    modules = [f"quantization.methods.{variant.method}", *_formats(variant)]
    return digest([variant.spec(), sources(*modules), own_sources(*PACKING)])


def accuracy_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into deviations."""
    return digest([structs.asdict(variant.run), sources("evaluation.accuracy", *_formats(variant), *_method(variant))])


def speed_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into milliseconds."""
    return digest([structs.asdict(variant.run), sources("benchmark.timing", *_formats(variant), *_method(variant))])


def reference_code() -> str:
    """Hash of all that decides the fp32 outputs."""
    return digest([own_sources(*REFERENCE), sources("model")])


def checkpoint_key(variant: Variant, model: list, device: str) -> str:
    """Name of a cached checkpoint; `model` is the hash of the weights and the config that gives them their meaning."""
    return digest([quantize_code(variant), model, provenance.torch_version(), device])[:24]


def reference_key(model: list, images: list, device: str) -> str:
    """Name of the cached fp32 outputs; `images` is the hash of the tensor's values, and its shape."""
    return digest([reference_code(), model, images, provenance.torch_version(), device])[:24]


def stage_codes(variants: dict[str, Variant], device: str) -> dict:
    """All that the workflow hands its rules as parameters, so that Snakemake sees what changed."""
    environment = {"torch": provenance.torch_version(), "device": device}
    kernels = provenance.kernel_libraries()
    comparison = {**environment, **_versions("numpy", "scikit-image", "scipy"), "kernels": kernels}
    here = {**environment, "device_name": _kind_of(device), "kernels": kernels}
    return {
        "device": device,
        "model": digest([own_sources("data.prepare"), sources("model.weights.pretrained"), _bundled_weights()]),
        "images": digest(
            [
                sources("data.scene", *_files("data.scenes"), "data.synthetic"),
                own_sources("data.prepare", "runtime.tensor_file"),
                _versions("numpy", "pillow"),
            ]
        ),
        "reference": digest([reference_code(), environment]),
        "quantize": {name: digest([quantize_code(v), environment]) for name, v in variants.items()},
        "accuracy": {name: digest([accuracy_code(v), comparison]) for name, v in variants.items()},
        "speed": {name: digest([speed_code(v), here]) for name, v in variants.items()},
        "report": sources("report.collect"),
    }


def _kind_of(device: str) -> str | None:
    """Which processor or GPU this machine has; None where the GPU is another machine's."""
    return None if device == "cuda" and not gpus.gpu_names() else machine.device_name(device)


def _expect_file(variant: Variant, kind: str, name: object) -> None:
    known = sorted(path.stem for path in (PACKAGE / "quantization" / f"{kind}s").glob("[!_]*.py"))
    if name not in known:
        raise ValueError(f"Variant {variant.name}: there is no {kind} {name!r}; there are {', '.join(known)}.")


def _bundled_weights() -> list[str]:
    """What the small model in the package holds, which no setting of a run names as a file."""
    files = sorted((PACKAGE / "model" / "tiny").glob("*.safetensors"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def _files(folder: str) -> list[str]:
    """The modules of a folder whose files are found by their names."""
    return [f"{folder}.{path.stem}" for path in sorted(PACKAGE.joinpath(*folder.split(".")).glob("[!_]*.py"))]


def _versions(*distributions: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in distributions}


def _formats(variant: Variant) -> list[str]:
    return [f"quantization.formats.{variant.config['format']}"] if "format" in variant.config else []


def _method(variant: Variant) -> list[str]:
    """A method that imports its format itself (and so names none in its settings) stands for that format."""
    return [] if "format" in variant.config else [f"quantization.methods.{variant.method}"]


def cached(cache: Path | str, kind: str, name: str) -> Path:
    """Path of an entry in the cache, which may be a network volume."""
    return Path(cache) / kind / f"{name}.safetensors"
