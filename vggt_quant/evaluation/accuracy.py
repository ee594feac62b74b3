"""Compare a variant with fp32, and with the ground truth where that is known: checkpoint + scenes -> AccuracyResult."""

import logging
from collections.abc import Mapping
from typing import Any

from msgspec import structs
from torch import Tensor

from vggt_quant.evaluation import metrics
from vggt_quant.evaluation.reference import describe, load_outputs
from vggt_quant.evaluation.tensor_errors import output_errors
from vggt_quant.inference.engine import Engine, moved_note, open_checkpoint, run_device
from vggt_quant.results.scene_schema import SceneAccuracy, SceneImages, SceneReference
from vggt_quant.results.schema import AccuracyResult, ImagesResult, ModelResult, Packed, ReferenceResult
from vggt_quant.runtime.progress import track
from vggt_quant.runtime.provenance import provenance
from vggt_quant.runtime.tensor_file import read_tensors
from vggt_quant.variants import DEFAULT, RunSettings

log = logging.getLogger(__name__)


def measure_accuracy(
    model: ModelResult,
    images: ImagesResult,
    reference: ReferenceResult,
    packed: Packed,
    device: str,
    run: RunSettings = DEFAULT,
) -> AccuracyResult:
    """Run the packed model on every scene and compare its outputs on the CPU with the reference and with the truth.

    Raises:
        UnsupportedError: The device has no kernel for it, or does not support the run settings.
        CheckpointError: The checkpoint is damaged or gone.
        TensorFileError: So are the photos or the reference.
    """
    target = run_device(packed.checkpoint, device)
    engine = open_checkpoint(packed.checkpoint, target, run)
    pairs = list(zip(images.scenes, reference.scenes, strict=True))
    scenes = [_measure_scene(engine, scene, fp32) for scene, fp32 in track(pairs, f"accuracy of {packed.variant}")]
    return AccuracyResult(
        variant=packed.variant,
        label=model.label,
        run=structs.asdict(run),
        metrics=metrics.described(),
        scenes=scenes,
        note=moved_note(target, device),
        provenance=provenance(target),
    )


def _measure_scene(engine: Engine, scene: SceneImages, fp32: SceneReference) -> SceneAccuracy:
    assert scene.name == fp32.scene, "scenes and reference in the same order"
    tensors = read_tensors(scene.path)
    outputs = engine.run(tensors["images"])
    for name, value in outputs.items():
        info = describe(value)
        log.info("%s, %s: %s %s %s", scene.name, name, info.type, info.shape or "", info.dtype or "")
    truth = tensors if scene.truth else None
    return compare(
        scene.name, load_outputs(fp32.path), outputs, num_images=scene.shape[0], truth=truth, unit=scene.unit
    )


def compare(
    scene: str,
    reference: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    num_images: int,
    truth: Mapping[str, Tensor] | None = None,
    unit: str | None = None,
) -> SceneAccuracy:
    """Every figure of one scene; a model without a camera or depth head has no figures there."""
    errors, notes = output_errors(reference, outputs)
    return SceneAccuracy(
        scene=scene,
        num_images=num_images,
        outputs=errors,
        notes=notes,
        deviation=metrics.measure("deviation", outputs, reference),
        truth=metrics.measure("truth", outputs, truth) if truth else None,
        truth_unit=unit,
    )
