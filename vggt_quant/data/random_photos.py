"""Smooth random images for timing, so that no photos are needed. The first n images are always the same."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.results.scene_schema import SceneImages
from vggt_quant.results.schema import ImagesResult
from vggt_quant.runtime.tensor_file import write_tensors

OCTAVES = ((4, 0.6), (16, 0.3), (64, 0.1))
"""Cells across the shorter side, and their share of the brightness."""


def draw(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Images [count, 3, height, width] in [0, 1]: random grids, enlarged and added. The first are always the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_draw_one(height, width, generator) for _ in range(count)])


def _draw_one(height: int, width: int, generator: torch.Generator) -> Tensor:
    image = torch.zeros(1, 3, height, width)
    for cells, share in OCTAVES:
        scale = cells / min(height, width)
        grid = torch.rand(1, 3, round(height * scale) + 1, round(width * scale) + 1, generator=generator)
        image += share * functional.interpolate(grid, (height, width), mode="bicubic", align_corners=True)
    return image.clamp(0, 1)[0]


def prepare(folder: Path, counts: list[int], height: int, width: int) -> ImagesResult:
    """Write the first images, one scene for each of `counts`, as a stage takes them; `scene_name` names the scenes."""
    images_N3HW = draw(max(counts), height, width)
    scenes = [_store(folder / f"{scene_name(count)}.safetensors", images_N3HW[:count]) for count in counts]
    return ImagesResult(folder="random", mode="crop", scenes=scenes)


def scene_name(count: int) -> str:
    """What the scene of the first `count` images is called."""
    return f"first_{count}"


def _store(path: Path, images_N3HW: Tensor) -> SceneImages:
    images_N3HW = images_N3HW.contiguous().clone()
    write_tensors({"images": images_N3HW}, path)
    return SceneImages(
        name=path.stem,
        kind="photos",
        folder="random",
        paths=[],
        skipped=[],
        shape=list(images_N3HW.shape),
        path=str(path.absolute()),
        tensor_sha256=hashlib.sha256(images_N3HW.numpy().tobytes()).hexdigest(),
        image_sha256=[],
        truth=[],
        unit=None,
    )
