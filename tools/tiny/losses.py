"""VGGT's training losses (arXiv:2503.11651, section 3.4), and the targets they compare with.

Shapes: B scenes, S views, F frames taken for the dense losses, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggt_quant.data.geometry import cameras_to_pose
from vggt_quant.data.synthetic.raycasting import Cameras

ITERATION_DECAY = 0.6
CONFIDENCE_ALPHA = 0.2
CAMERA_WEIGHT = 5.0
FOV_WEIGHT = 0.5
"""Of the two fields of view; translation and quaternion count once."""
DEPTH_FLOOR = 0.1
"""Added to the depth that a depth error is divided by: AbsRel is what counts, but not at an object's very skin."""
GRADIENT_SCALES = (1, 2, 4)


def targets(views: dict[str, Tensor], cameras: Cameras) -> dict[str, Tensor]:
    """Ground truth in VGGT's coordinates: those of the first camera, mean distance of all visible points to it 1.

    Returns:
        pose [B, S, 9], depth [B, S, H, W], points [B, S, H, W, 3].
    """
    first = cameras.extrinsics[:, 0]
    points = _move(first[:, None, None, None], views["world_points"])
    scale = points.norm(dim=-1).mean(dim=(1, 2, 3))
    rotation = (cameras.extrinsics[..., None, :3] * first[:, None, None, :, :3]).sum(-1)
    translation = cameras.extrinsics[..., 3] - (rotation * first[:, None, None, :, 3]).sum(-1)
    extrinsics = torch.cat([rotation, (translation / scale[:, None, None])[..., None]], dim=-1)
    size = tuple(views["depth"].shape[-2:])
    return {
        "pose": cameras_to_pose(extrinsics, cameras.intrinsics, size),
        "depth": views["depth"] / scale[:, None, None, None],
        "points": points / scale[:, None, None, None, None],
    }


def _move(extrinsics: Tensor, points: Tensor) -> Tensor:
    return (extrinsics[..., :3] * points[..., None, :]).sum(-1) + extrinsics[..., 3]


def camera_loss(poses: list[Tensor], pose: Tensor) -> Tensor:
    """L1 of every iteration's pose, the last one counting most."""
    distances = [(predicted - pose).abs() for predicted in poses]
    errors = [d[..., :7].sum(-1).mean() + FOV_WEIGHT * d[..., 7:].sum(-1).mean() for d in distances]
    factors = [ITERATION_DECAY ** (len(poses) - 1 - i) for i in range(len(poses))]
    return sum(f * e for f, e in zip(factors, errors, strict=True)) / sum(factors)


def depth_loss(logits_F2HW: Tensor, depth_FHW: Tensor) -> Tensor:
    """Confidence-weighted relative error of exp(logits), and of its gradients."""
    value, confidence = logits_F2HW.float().unbind(dim=1)
    error = (value.exp() - depth_FHW) / (depth_FHW + DEPTH_FLOOR)
    return _weighted(error.abs(), confidence) + _gradients(error[..., None])


def point_loss(logits_F4HW: Tensor, points_FHW3: Tensor) -> Tensor:
    """The same of points, whose error is divided by their distance to the first camera."""
    logits = logits_F4HW.float().movedim(1, -1)
    value = logits[..., :3].sign() * logits[..., :3].abs().expm1()
    reach = points_FHW3.norm(dim=-1, keepdim=True) + 2 * DEPTH_FLOOR
    error = (value - points_FHW3) / reach
    return _weighted((error.square().sum(-1) + 1e-8).sqrt(), logits[..., 3]) + _gradients(error)


def _weighted(error: Tensor, logit: Tensor) -> Tensor:
    """Error times confidence 1 + exp(logit), minus what keeps the confidence from vanishing."""
    confidence = 1 + logit.clamp(max=8).exp()
    return (confidence * error - CONFIDENCE_ALPHA * confidence.log()).mean()


def _gradients(error_FHWC: Tensor) -> Tensor:
    """Mean change of the error between neighbours, at several scales."""
    total = error_FHWC.new_zeros(())
    for scale in GRADIENT_SCALES:
        part = error_FHWC[:, ::scale, ::scale]
        total = total + (part[:, 1:] - part[:, :-1]).abs().mean() + (part[:, :, 1:] - part[:, :, :-1]).abs().mean()
    return total / len(GRADIENT_SCALES)
