"""Metrics during training, for all scenes at once; `evaluate.py` computes the figures that are quoted."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from vggt_quant.data.geometry import direction_angle, invert_rigid, pose_to_cameras, rotation_angle
from vggt_quant.data.synthetic.raycasting import Cameras


@torch.no_grad()
def judge(model: nn.Module, views: dict[str, Tensor], cameras: Cameras, *, at_a_time: int = 40) -> dict[str, float]:
    """AUC@30, median angles, AbsRel and delta < 1.25 after one median scale a scene."""
    model.eval()
    parts = [model(images) for images in views["rgb"].split(at_a_time)]
    model.train()
    pose, depth = (torch.cat([part[name] for part in parts]) for name in ("pose_enc", "depth"))
    extrinsics, _ = pose_to_cameras(pose.double(), tuple(views["depth"].shape[-2:]))
    rotation, direction = pair_angles(extrinsics, cameras.extrinsics.double())
    worst = torch.maximum(rotation, direction)
    ratio = views["depth"] / depth[..., 0]
    scale = ratio.flatten(1).median(dim=1).values[:, None, None, None]
    aligned = depth[..., 0] * scale
    within = (aligned < 1.25 * views["depth"]) & (views["depth"] < 1.25 * aligned)
    return {
        "auc_30": float((1 - worst / 30).clamp(min=0).mean()),
        "rotation_deg": float(rotation.median()),
        "direction_deg": float(direction.median()),
        "abs_rel": float(((aligned - views["depth"]).abs() / views["depth"]).mean()),
        "delta_125": float(within.float().mean()),
    }


def pair_angles(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and direction errors [B, pairs] in degrees of all relative poses."""
    angles = []
    for i, j in combinations(range(true.shape[1]), 2):
        relative = [_square(e[:, j]) @ invert_rigid(e[:, i]) for e in (predicted, true)]
        rotation = rotation_angle(relative[0][:, :3, :3], relative[1][:, :3, :3])
        angles.append((rotation, direction_angle(relative[0][:, :3, 3], relative[1][:, :3, 3])))
    return tuple(torch.rad2deg(torch.stack(kind, dim=1)) for kind in zip(*angles, strict=True))


def _square(extrinsics: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0, 0, 1], dtype=extrinsics.dtype, device=extrinsics.device)
    return torch.cat([extrinsics, last.expand(len(extrinsics), 1, 4)], dim=1)
