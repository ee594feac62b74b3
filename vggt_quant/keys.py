"""Which stage depends on what: code hashes that the workflow watches, and the keys of cached files. No torch.

A key holds everything that decides a file's bytes and nothing else: an edit reruns exactly what depends on it.
"""

import json
from argparse import Namespace
from pathlib import Path

from vggt_quant import machine
from vggt_quant.fingerprint import PACKAGE, digest, own_sources, sources
from vggt_quant.variants import Variant, load_variants

PACKING = ("packing", "quantize", "checkpoint", "policy", "rounding", "tensor_file", "variants")
"""What every packed checkpoint goes through; their own imports (the model, the loader) decide no byte of it."""


def quantize_code(variant: Variant) -> str:
    """Hash of the settings, the method, the format, its kernels and the shared packing code.

    Raises:
        ValueError: A method or format that does not exist.
    """
    _expect_file(variant, "method", variant.method)
    if "format" in variant.config:
        _expect_file(variant, "format", variant.config["format"])
    modules = [f"methods.{variant.method}", *_formats(variant)]
    return digest([variant.spec(), sources(*modules), own_sources(*PACKING)])


def accuracy_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into deviations."""
    return sources("accuracy", *_formats(variant), *_method(variant))


def speed_code(variant: Variant) -> str:
    """Hash of all that turns a checkpoint into milliseconds."""
    return sources("speed", *_formats(variant), *_method(variant))


def reference_code() -> str:
    """Hash of all that decides the fp32 outputs."""
    return sources("reference", "model")


def checkpoint_key(variant: Variant, weights_sha256: str, device: str) -> str:
    """Name of a cached checkpoint."""
    parts = [quantize_code(variant), weights_sha256, machine.torch_version(), device]
    return digest(parts)[:24]


def reference_key(weights_sha256: str, images_sha256: str, device: str) -> str:
    """Name of the cached fp32 outputs."""
    return digest([reference_code(), weights_sha256, images_sha256, machine.torch_version(), device])[:24]


def stage_codes(variants: dict[str, Variant], device: str) -> dict:
    """All that the workflow hands its rules as parameters, so that Snakemake sees what changed."""
    environment = {"torch": machine.torch_version(), "device": device}
    here = {**environment, "device_name": machine.device_name(device)}
    return {
        "device": device,
        "model": digest([own_sources("inputs"), sources("model.pretrained")]),
        "images": sources("images", "synthetic"),
        "reference": digest([reference_code(), environment]),
        "quantize": {name: digest([quantize_code(v), environment]) for name, v in variants.items()},
        "accuracy": {name: digest([accuracy_code(v), environment]) for name, v in variants.items()},
        "speed": {name: digest([speed_code(v), here]) for name, v in variants.items()},
        "report": sources("report"),
    }


def _expect_file(variant: Variant, kind: str, name: object) -> None:
    known = sorted(path.stem for path in (PACKAGE / f"{kind}s").glob("[!_]*.py"))
    if name not in known:
        raise ValueError(f"Variant {variant.name}: there is no {kind} {name!r}; there are {', '.join(known)}.")


def _formats(variant: Variant) -> list[str]:
    return [f"formats.{variant.config['format']}"] if "format" in variant.config else []


def _method(variant: Variant) -> list[str]:
    """A method that imports its format itself (and so names none in its settings) stands for that format."""
    return [] if "format" in variant.config else [f"methods.{variant.method}"]


def cached(cache: Path | str, kind: str, name: str) -> Path:
    """Path of an entry in the cache, which may be a network volume."""
    return Path(cache) / kind / f"{name}.safetensors"


def command(args: Namespace) -> None:
    """`vggt-quant keys`: print what each stage depends on, as JSON."""
    variants = load_variants(args.variants)
    print(json.dumps(stage_codes(variants, machine.resolve_device(args.device)), indent=1))
