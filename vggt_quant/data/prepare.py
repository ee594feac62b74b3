"""The inputs of a comparison: which model, which scenes to compare on, which scenes to calibrate with."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vggt_quant.data import synthetic
from vggt_quant.data.scene import Scene, find_scenes, load_scene
from vggt_quant.data.truth.frames import Truth, store_truth
from vggt_quant.model import VGGT
from vggt_quant.model.weights.pretrained import expect_fitting, resolve, weights_sha256
from vggt_quant.results.scene_schema import SceneImages, SkippedImage, TruthPart
from vggt_quant.results.schema import ImagesResult, ModelResult
from vggt_quant.runtime.tensor_file import write_tensors

DRAWN = "drawn"
"""The name of a folder that stands for rooms which this project draws itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Which rooms are drawn: those of the seeds from `first` on, `default` of them unless a number is given."""

    first: int
    default: int


EVALUATION_SEEDS = Seeds(first=0, default=16)
CALIBRATION_SEEDS = Seeds(first=1000, default=8)
DEFAULT_VIEWS = 4
"""Views of a drawn room unless a number is given."""


def prepare_model(name: str) -> ModelResult:
    """Find (and if need be download) the weights of `name` and identify them.

    Raises:
        ValueError: Not there, not reachable, damaged, or not a VGGT.
    """
    source = resolve(name)
    expect_fitting(source)
    with torch.device("meta"):
        model = VGGT(source.config)
    return ModelResult(
        name=name,
        label=source.label,
        random_weights=source.kind == "random",
        weights_sha256=weights_sha256(source),
        num_parameters=sum(math.prod(parameter.shape) for parameter in model.parameters()),
        config=source.config.to_dict(),
        revision=source.revision,
    )


def prepare_images(
    folder: str,
    out: Path,
    *,
    size: int,
    mode: Literal["crop", "pad"],
    max_images: int | None = None,
    max_scenes: int | None = None,
    seeds: Seeds = EVALUATION_SEEDS,
) -> ImagesResult:
    """Find the scenes and preprocess them once for all variants.

    Args:
        folder: Photos, a scene with ground truth (a layout in `scenes`), a folder of such scenes, or "drawn".
        out: Folder for the tensors that the model will see, one file a scene, and for the rooms that are drawn.
        size: Width (and largest height) in pixels, the model's `img_size`.
        mode: "crop" or "pad", as VGGT's preprocessing.
        max_images: The most photos to take of a scene; None takes all (of a drawn one, four).
        max_scenes: The most scenes to take; None takes all (of drawn ones, what `seeds` says).
        seeds: Which ones "drawn" means.

    Raises:
        ValueError: No usable photo, or ground truth that does not fit.
    """
    if folder == DRAWN:
        folders = synthetic.draw_scenes(
            out / DRAWN,
            num_scenes=max_scenes or seeds.default,
            num_views=max_images or DEFAULT_VIEWS,
            size=size,
            first_seed=seeds.first,
        )
    else:
        folders = find_scenes(folder)[:max_scenes]
    _refuse_same_names(folders)
    scenes = [_prepare_scene(path, out, size=size, mode=mode, max_images=max_images) for path in folders]
    return ImagesResult(folder=folder, mode=mode, scenes=scenes)


def prepare_calibration(folder: str, out: Path, images: ImagesResult, **settings: Any) -> ImagesResult:
    """Like `prepare_images`, for the scenes of methods that calibrate, which share no photo with the comparison.

    Raises:
        ValueError: As there, or a photo that is also among `images`.
    """
    calibration = prepare_images(folder, out, seeds=CALIBRATION_SEEDS, **settings)
    compared_on = {sha256: scene for scene in images.scenes for sha256 in scene.image_sha256}
    for scene in calibration.scenes:
        for path, sha256 in zip(scene.paths, scene.image_sha256, strict=True):
            if sha256 in compared_on:
                raise ValueError(
                    f"The calibration scene {scene.name} shares the photo {Path(path).name} with the compared scene "
                    f"{compared_on[sha256].name}, which would flatter the methods that calibrate; choose other scenes."
                )
    return calibration


def _refuse_same_names(folders: list[Path]) -> None:
    """Refuse two scenes whose folders have the same name (links followed), because results name scenes by it."""
    seen: dict[str, Path] = {}
    for folder in folders:
        other = seen.setdefault(folder.resolve().name, folder)
        if other != folder:
            raise ValueError(f"{other} and {folder} are both scenes named {folder.resolve().name}; rename one of them.")


def _prepare_scene(folder: Path, out: Path, *, size: int, mode: str, max_images: int | None) -> SceneImages:
    scene = load_scene(folder, size=size, mode=mode, max_images=max_images)
    images_N3HW = scene.images.contiguous()
    path = out / f"{scene.name}.safetensors"
    write_tensors({"images": images_N3HW, **(store_truth(scene.truth) if scene.truth else {})}, path)
    return SceneImages(
        name=scene.name,
        kind=scene.kind,
        folder=str(scene.folder),
        paths=[str(photo) for photo in scene.paths],
        skipped=[SkippedImage(path=str(photo), reason=reason) for photo, reason in scene.skipped],
        shape=list(images_N3HW.shape),
        path=str(path),
        tensor_sha256=hashlib.sha256(images_N3HW.numpy().tobytes()).hexdigest(),
        image_sha256=[hashlib.sha256(photo.read_bytes()).hexdigest() for photo in scene.paths],
        truth=_known_parts(scene),
        unit=scene.truth.unit if scene.truth else None,
    )


def _known_parts(scene: Scene) -> list[TruthPart]:
    truth = scene.truth or Truth(extrinsics=None, intrinsics=None, depths=None, unit="unknown")
    parts: dict[TruthPart, Tensor | None] = {
        "poses": truth.extrinsics,
        "intrinsics": truth.intrinsics,
        "depth": None if truth.depths is None else truth.depths.where(truth.depths > 0, torch.nan),
    }
    return [name for name, part in parts.items() if part is not None and part.isfinite().any()]
