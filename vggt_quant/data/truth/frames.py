"""Ground truth of a scene at the resolution that the model sees."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

PARTS = ("extrinsics", "intrinsics", "depths")
NAMED_IN_A_WARNING = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What is known of S frames of H x W pixels; a part that is not known for any frame is None.

    Attributes:
        extrinsics: [S, 3, 4] float64, camera from world, OpenCV axes; NaN in the frames without a pose.
        intrinsics: [S, 3, 3] float64, in pixels of the preprocessed images with centres on the integers; NaN in the
            frames whose camera is not known.
        depths: [S, H, W] float32, along the camera's z axis; 0 where unknown, masked or padded.
        unit: "metre" or "unknown", of depths and translations.
    """

    extrinsics: Tensor | None
    intrinsics: Tensor | None
    depths: Tensor | None
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What is known of one photo; the shapes are `Truth`'s without S."""

    extrinsic: Tensor | None = None
    intrinsic: Tensor | None = None
    depth: Tensor | None = None


def stack_frames(frames: Mapping[str, Frame], image: tuple[int, int], *, unit: str) -> Truth:
    """Frames by their photos' names to the truth of a scene whose images are `image` (width, height) pixels.

    A warning names the photos without a pose and, if others have one, those without a depth map.
    """
    depths = [frame.depth for frame in frames.values()]
    _warn("pose", [name for name, frame in frames.items() if frame.extrinsic is None], len(frames))
    if any(depth is not None for depth in depths):
        _warn("depth map", [name for name, frame in frames.items() if frame.depth is None], len(frames))
    unknown = torch.full((3, 4), torch.nan, dtype=torch.float64)
    return Truth(
        extrinsics=torch.stack([_or(frame.extrinsic, unknown) for frame in frames.values()]),
        intrinsics=torch.stack([_or(frame.intrinsic, unknown[:, :3]) for frame in frames.values()]),
        depths=_stack_depths(depths, image),
        unit=unit,
    )


def store_truth(truth: Truth) -> dict[str, Tensor]:
    """The parts that are known, by name, for a tensor file; the unit is the caller's to keep."""
    parts = {name: getattr(truth, name) for name in PARTS}
    return {name: part.contiguous() for name, part in parts.items() if part is not None}


def _or(known: Tensor | None, unknown: Tensor) -> Tensor:
    return unknown if known is None else known


def _stack_depths(depths: list[Tensor | None], image: tuple[int, int]) -> Tensor | None:
    if all(depth is None for depth in depths):
        return None
    unknown = torch.zeros(image[1], image[0])
    stacked = torch.stack([_or(depth, unknown).float() for depth in depths])
    return torch.where(stacked.isfinite() & (stacked > 0), stacked, 0.0)


def _warn(what: str, names: list[str], total: int) -> None:
    if names:
        more = f" and {len(names) - NAMED_IN_A_WARNING} more" if len(names) > NAMED_IN_A_WARNING else ""
        listed = ", ".join(names[:NAMED_IN_A_WARNING]) + more
        logger.warning("%d of %d photos have no %s: %s.", len(names), total, what, listed)
