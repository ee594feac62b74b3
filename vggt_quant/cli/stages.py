"""The stages of a comparison as commands: arguments in, one result out. A file of results or the thing itself will do:
`--model` takes model.json or a model name, `--images` images.json or a folder, `--packed` a result or a checkpoint.
"""

import contextlib
import dataclasses
import logging
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vggt_quant.benchmark import sweep
from vggt_quant.benchmark import timing as speed_stage
from vggt_quant.cli import speed_flags
from vggt_quant.data import prepare
from vggt_quant.evaluation import accuracy as accuracy_stage
from vggt_quant.evaluation import reference as reference_stage
from vggt_quant.inference.engine import UnsupportedError
from vggt_quant.model import VGGTConfig
from vggt_quant.quantization import checkpoint, make_checkpoint
from vggt_quant.results.schema import (
    AccuracyResult,
    Error,
    ImagesResult,
    ModelResult,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    read,
)
from vggt_quant.results.speed_schema import SweepResult
from vggt_quant.results.typed_json import build
from vggt_quant.runtime import machine
from vggt_quant.variants import DEFAULT, RunSettings, find_variant

log = logging.getLogger(__name__)


def model(args: Namespace) -> ModelResult:
    """Which weights."""
    result = _model(args.model)
    log.info("%s: %s, %.1f M parameters", result.name, result.label, result.num_parameters / 1e6)
    return result


def images(args: Namespace) -> ImagesResult:
    """Which scenes are compared on."""
    return _log(prepare.prepare_images(args.image_folder, _prepared(args), **_image_settings(args)))


def calibration(args: Namespace) -> ImagesResult:
    """Which scenes methods may learn from."""
    compared_on = read(ImagesResult, args.images)
    return _log(prepare.prepare_calibration(args.image_folder, _prepared(args), compared_on, **_image_settings(args)))


def reference(args: Namespace) -> ReferenceResult:
    """The fp32 outputs."""
    device, source = machine.resolve_device(args.device), _model(args.model)
    with _photos(args, source.config) as photos:
        result = reference_stage.make_reference(source, photos, args.cache, device)
    for name, info in result.outputs.items():
        log.info("%s: %s %s %s", name, info.type, info.shape or "", info.dtype or "")
    log.info("%d of %d scenes were in the cache", sum(scene.cached for scene in result.scenes), len(result.scenes))
    return result


def quantize(args: Namespace) -> QuantizeResult:
    """The packed checkpoint of a variant."""
    variant, device = find_variant(args.variant, args.variants), machine.resolve_device(args.device)
    result = make_checkpoint.make_checkpoint(_model(args.model), variant, args.cache, device)
    verb = "found" if result.cached else "made"
    log.info("%s %s (%.1f MB)", verb, result.checkpoint, result.checkpoint_bytes / 1e6)
    return result


def accuracy(args: Namespace) -> AccuracyResult:
    """How far a variant is from fp32."""
    device, packed, source = machine.resolve_device(args.device), _packed(args), _model(args.model)
    if packed.outcome != "ok":
        return AccuracyResult(variant=packed.variant, outcome=packed.outcome, error=packed.error, label=source.label)
    made = args.reference and read(ReferenceResult, args.reference)
    for scene in made.scenes if made else ():
        _expect_cached(scene.path, args.reference)
    try:
        with _photos(args, source.config) as photos:
            fp32 = made or reference_stage.make_reference(source, photos, args.cache, device)
            return accuracy_stage.measure_accuracy(source, photos, fp32, packed, device, _run(args))
    except UnsupportedError as reason:
        error = _unsupported("accuracy", reason)
        return AccuracyResult(variant=packed.variant, outcome="unsupported", error=error, label=source.label)


def speed(args: Namespace) -> SpeedResult | SweepResult:
    """Time and memory of a variant; on several numbers of images where `--num-images` says so."""
    speed_flags.check(args)
    device, packed = machine.resolve_device(args.device), _packed(args)
    kind = SweepResult if args.num_images else SpeedResult
    if packed.outcome != "ok":
        return kind(variant=packed.variant, outcome=packed.outcome, error=packed.error)
    try:
        config = checkpoint.read_manifest(packed.checkpoint)["model"]["config"]
        with _photos(args, config, max_scenes=1) as photos:
            if args.num_images:
                return _sweep(args, photos, packed, device)
            result = speed_stage.measure_speed(photos, packed, device, _run(args))
    except UnsupportedError as reason:
        return kind(variant=packed.variant, outcome="unsupported", error=_unsupported("speed", reason))
    log.info("%.1f ms median of %d", result.latency_ms_median, len(result.latencies_ms))
    return result


def _sweep(args: Namespace, photos: ImagesResult, packed: QuantizeResult, device: str) -> SweepResult:
    reference = read(ReferenceResult, args.reference) if args.reference else None
    return sweep.measure_sweep(
        photos,
        packed,
        device,
        _run(args),
        num_images=args.num_images,
        repeats=args.repeats,
        reference=reference,
        fill_memory_gib=args.fill_memory,
    )


def _model(value: str) -> ModelResult:
    return read(ModelResult, value) if value.endswith(".json") else prepare.prepare_model(value)


def _prepared(args: Namespace) -> Path:
    """The folder for preprocessed scenes: beside the result file, or else a temporary one that stays."""
    return args.out.with_name(f"{args.out.stem}_prepared") if args.out else Path(tempfile.mkdtemp()) / args.command


def _image_settings(args: Namespace) -> dict[str, Any]:
    config = VGGTConfig.from_dict(_model(args.model).config) if args.model else VGGTConfig()
    limits = {"max_images": args.max_images, "max_scenes": args.max_scenes}
    return {"size": config.img_size, "mode": args.image_mode, **limits}


def _log(result: ImagesResult) -> ImagesResult:
    log.info("%s", prepare.describe_scenes(result))
    for skipped in [skipped for scene in result.scenes for skipped in scene.skipped]:
        log.warning("skipped %s: %s", skipped.path, skipped.reason)
    return result


@contextlib.contextmanager
def _photos(args: Namespace, config: dict[str, Any], max_scenes: int | None = None) -> Iterator[ImagesResult]:
    """The preprocessed scenes: those of a result, or a folder's, at the size that the model's configuration says."""
    if args.images.endswith(".json"):
        yield read(ImagesResult, args.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = VGGTConfig.from_dict(config).img_size
        tensors = Path(folder) / "images"
        result = prepare.prepare_images(args.images, tensors, size=size, mode="crop", max_scenes=max_scenes)
        log.info("%s", prepare.describe_scenes(result))
        yield result


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


def _run(args: Namespace) -> RunSettings:
    """How to run a checkpoint: as its variant says; without one, by the default."""
    return find_variant(args.variant, args.variants).run if args.variant else DEFAULT


def _expect_cached(file: str, result: Path) -> None:
    if not Path(file).is_file():
        raise ValueError(f"The cached file {file} is gone; delete {result} and run again to make it anew.")


def _unsupported(stage: str, reason: UnsupportedError) -> Error:
    return Error(stage=stage, kind="unsupported", message=str(reason), traceback=None, exit_code=0)
