"""How far a variant is from fp32 on the same photos: checkpoint + images -> AccuracyResult."""

import logging
from pathlib import Path

from vggt_quant import metrics
from vggt_quant.engine import open_checkpoint, run_device
from vggt_quant.provenance import provenance
from vggt_quant.reference import describe, load_outputs
from vggt_quant.results import (
    AccuracyResult,
    ImagesResult,
    ModelResult,
    QuantizeResult,
    ReferenceResult,
    SceneAccuracy,
    TensorError,
)
from vggt_quant.tensor_file import read_tensors

log = logging.getLogger(__name__)


def measure_accuracy(
    model: ModelResult, images: ImagesResult, reference: ReferenceResult, packed: QuantizeResult, device: str
) -> AccuracyResult:
    """Run the packed model on the photos and compare every output with the reference, on the CPU in float32.

    Raises:
        UnsupportedError: This device has no kernel for it.
        CheckpointError: The checkpoint is damaged or gone.
        TensorFileError: So are the photos or the reference.
    """
    place = run_device(packed.checkpoint, device)
    engine = open_checkpoint(packed.checkpoint, place)
    outputs = engine.run(read_tensors(images.path)["images"])
    for name, value in outputs.items():
        info = describe(value)
        log.info("%s: %s %s %s", name, info.type, info.shape or "", info.dtype or "")
    scene = compare(Path(images.folder).name, load_outputs(reference.path), outputs, num_images=images.shape[0])
    note = None if place == device else f"measured on the {place.upper()}: it has no {device.upper()} kernel"
    return AccuracyResult(
        variant=packed.variant,
        outcome="ok",
        error=None,
        label=model.label,
        scenes=[scene],
        note=note,
        provenance=provenance(place),
    )


def compare(scene: str, reference: dict, outputs: dict, *, num_images: int) -> SceneAccuracy:
    """Every deviation of one scene; a model without a camera or depth head has no figures there."""
    errors, notes = metrics.output_errors(reference, outputs)
    shared = set(reference) & set(outputs)
    camera = metrics.camera_errors(reference["pose_enc"], outputs["pose_enc"]) if "pose_enc" in shared else {}
    depth = metrics.depth_errors(reference["depth"], outputs["depth"]) if "depth" in shared else {}
    return SceneAccuracy(
        scene=scene,
        num_images=num_images,
        outputs={name: TensorError(**error) for name, error in errors.items()},
        notes=notes,
        **camera,
        **depth,
    )
