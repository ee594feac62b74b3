"""The two inputs of a comparison: which model, and which photos."""

import hashlib
import math
from pathlib import Path

import torch

from vggt_quant import synthetic
from vggt_quant.images import describe, find_images, load_images
from vggt_quant.model import VGGT
from vggt_quant.model.pretrained import resolve, weights_sha256
from vggt_quant.results import ImagesResult, ModelResult, SkippedImage
from vggt_quant.tensor_file import write_tensors

DRAWN = "drawn"
"""The name of a folder that stands for photos which this project draws itself."""


def prepare_model(name: str) -> ModelResult:
    """Find (and if need be download) the weights of `name` and identify them.

    Raises:
        ValueError: Not there, not reachable, or not a VGGT.
    """
    source = resolve(name)
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


def prepare_images(folder: str, out: Path, *, size: int, mode: str, max_images: int | None) -> tuple[ImagesResult, str]:
    """Find the photos, preprocess them once for all variants, and say so in one line.

    Args:
        folder: A folder of photos, or "drawn".
        out: The safetensors file for the tensor that the model will see.
        size: Width (and largest height) in pixels, the model's `img_size`.
        mode: "crop" or "pad", as VGGT's preprocessing.
        max_images: Take at most so many; None takes all (of drawn ones, four).

    Raises:
        ValueError: No usable photo.
    """
    if folder == DRAWN:
        synthetic.draw_scene(out.parent / DRAWN, num_images=max_images or 4)
    found = find_images(out.parent / DRAWN if folder == DRAWN else folder, max_images=max_images)
    images_N3HW = load_images(found.paths, mode, size=size).contiguous()
    write_tensors({"images": images_N3HW}, out)
    result = ImagesResult(
        folder=str(found.folder),
        paths=[str(path) for path in found.paths],
        skipped=[SkippedImage(path=str(path), reason=reason) for path, reason in found.skipped],
        mode=mode,
        shape=list(images_N3HW.shape),
        tensor_sha256=hashlib.sha256(images_N3HW.numpy().tobytes()).hexdigest(),
        path=str(out),
    )
    return result, describe(found)
