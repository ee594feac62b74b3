"""The stages of a comparison as commands: arguments in, one result out. A file of results or the thing itself will do:
`--model` takes model.json or a model name, `--images` images.json or a folder, `--packed` a result or a checkpoint.
"""

import dataclasses
import logging
import tempfile
from argparse import Namespace
from pathlib import Path

from vggt_quant import accuracy as accuracy_stage
from vggt_quant import checkpoint, inputs, machine, packing
from vggt_quant import reference as reference_stage
from vggt_quant import speed as speed_stage
from vggt_quant.engine import UnsupportedError
from vggt_quant.model import VGGTConfig
from vggt_quant.results import (
    AccuracyResult,
    Error,
    ImagesResult,
    ModelResult,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    read,
)
from vggt_quant.typed_json import build
from vggt_quant.variants import find_variant

log = logging.getLogger(__name__)


def model(args: Namespace) -> ModelResult:
    """Which weights."""
    result = inputs.prepare_model(args.model)
    log.info("%s: %s, %.1f M parameters", result.name, result.label, result.num_parameters / 1e6)
    return result


def images(args: Namespace) -> ImagesResult:
    """Which photos."""
    size = VGGTConfig.from_dict(_model(args.model).config).img_size
    tensor = args.out.with_suffix(".safetensors") if args.out else Path(tempfile.mkdtemp()) / "images.safetensors"
    result, line = inputs.prepare_images(
        args.image_folder, tensor, size=size, mode=args.image_mode, max_images=args.max_images
    )
    log.info("%s", line)
    for skipped in result.skipped:
        log.warning("skipped %s: %s", skipped.path, skipped.reason)
    return result


def reference(args: Namespace) -> ReferenceResult:
    """The fp32 outputs."""
    source, photos = _model(args.model), _images(args)
    result = reference_stage.make_reference(source, photos, args.cache, machine.resolve_device(args.device))
    for name, info in result.outputs.items():
        log.info("%s: %s %s %s", name, info.type, info.shape or "", info.dtype or "")
    return result


def quantize(args: Namespace) -> QuantizeResult:
    """The packed checkpoint of a variant."""
    variant = find_variant(args.variant, args.variants)
    result = packing.make_checkpoint(_model(args.model), variant, args.cache, machine.resolve_device(args.device))
    verb = "found" if result.cached else "made"
    log.info("%s %s (%.1f MB)", verb, result.checkpoint, result.checkpoint_bytes / 1e6)
    return result


def accuracy(args: Namespace) -> AccuracyResult:
    """How far a variant is from fp32."""
    packed, source = _packed(args), _model(args.model)
    if packed.outcome != "ok":
        return AccuracyResult(variant=packed.variant, outcome=packed.outcome, error=packed.error, label=source.label)
    device, photos = machine.resolve_device(args.device), _images(args)
    made = args.reference and read(ReferenceResult, args.reference)
    if made:
        _expect_cached(made.path, args.reference)
    fp32 = made or reference_stage.make_reference(source, photos, args.cache, device)
    try:
        return accuracy_stage.measure_accuracy(source, photos, fp32, packed, device)
    except UnsupportedError as reason:
        error = _unsupported("accuracy", reason)
        return AccuracyResult(variant=packed.variant, outcome="unsupported", error=error, label=source.label)


def speed(args: Namespace) -> SpeedResult:
    """Time and memory of a variant."""
    packed = _packed(args)
    if packed.outcome != "ok":
        return SpeedResult(variant=packed.variant, outcome=packed.outcome, error=packed.error)
    try:
        result = speed_stage.measure_speed(_images(args), packed, machine.resolve_device(args.device))
    except UnsupportedError as reason:
        return SpeedResult(variant=packed.variant, outcome="unsupported", error=_unsupported("speed", reason))
    log.info("%.1f ms median of %d", result.latency_ms_median, len(result.latencies_ms))
    return result


def _model(value: str) -> ModelResult:
    return read(ModelResult, value) if value.endswith(".json") else inputs.prepare_model(value)


def _images(args: Namespace) -> ImagesResult:
    if args.images.endswith(".json"):
        return read(ImagesResult, args.images)
    size = VGGTConfig.from_dict(_model(args.model).config).img_size
    tensor = Path(tempfile.mkdtemp()) / "images.safetensors"
    result, line = inputs.prepare_images(args.images, tensor, size=size, mode="crop", max_images=None)
    log.info("%s", line)
    return result


def _packed(args: Namespace) -> QuantizeResult:
    path = args.packed
    if path.suffix == ".json":
        packed = read(QuantizeResult, path)
        if packed.checkpoint:
            _expect_cached(packed.checkpoint, path)
        return packed
    manifest = checkpoint.read_manifest(path)
    stored = build(QuantizeResult, manifest["result"])
    return dataclasses.replace(stored, checkpoint=str(path.absolute()), checkpoint_bytes=path.stat().st_size)


def _expect_cached(file: str, result: Path) -> None:
    if not Path(file).is_file():
        raise ValueError(f"The cached file {file} is gone; delete {result} and run again to make it anew.")


def _unsupported(stage: str, reason: UnsupportedError) -> Error:
    return Error(stage=stage, kind="unsupported", message=str(reason), traceback=None, exit_code=0)
