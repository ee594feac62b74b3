"""Cameras, rotations and alignment: pure functions of tensors.

Conventions: OpenCV axes (x right, y down, z forward); an extrinsic [R | t] maps world to camera; quaternions are xyzw,
scalar last; pixels are integers (column u, row v) with their centres on the integers; angles are radians. A pose
encoding is VGGT's: translation (3), quaternion (4), vertical and horizontal field of view (2), with the principal
point in the middle of the image. Every function takes any leading dimensions and keeps dtype and device, unless it
says otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COLLINEAR = 1e-5
"""Points that spread across a line by less than this part of their spread along it are taken to lie on it."""


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Quaternions xyzw [..., 4] of any norm but zero to rotation matrices [..., 3, 3]."""
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / quaternion.square().sum(-1)
    entries = (
        1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
        s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
        s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, dim=-1).view(*s.shape, 3, 3)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] to unit quaternions xyzw [..., 4] whose scalar part is not negative.

    Sums and differences of a rotation's entries give 4 q q^T, whose rows are all multiples of q. The row with the
    largest diagonal is taken, so nothing small is ever divided by, half turns included.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in rotation.unbind(-2))
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01
    entries = (
        1 + m00 - m11 - m22, xy, xz, xw,
        xy, 1 - m00 + m11 - m22, yz, yw,
        xz, yz, 1 - m00 - m11 + m22, zw,
        xw, yw, zw, 1 + m00 + m11 + m22,
    )  # fmt: skip
    outer = torch.stack(entries, dim=-1).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.take_along_dim(best[..., None, None], dim=-2).squeeze(-2)
    quaternion = F.normalize(row, dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def pose_to_cameras(pose_enc: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pose encodings to cameras.

    Args:
        pose_enc: [..., 9].
        image_size: (H, W) in pixels.

    Returns:
        Extrinsics [..., 3, 4] and intrinsics [..., 3, 3]; a field of view of 0 gives an infinite focal length.
    """
    height, width = image_size
    translation, quaternion, fov = pose_enc.split((3, 4, 2), dim=-1)
    extrinsic = torch.cat((quaternion_to_matrix(quaternion), translation.unsqueeze(-1)), dim=-1)
    half_tangent_y, half_tangent_x = torch.tan(fov / 2).unbind(-1)
    intrinsic = torch.zeros(*pose_enc.shape[:-1], 3, 3, dtype=pose_enc.dtype, device=pose_enc.device)
    intrinsic[..., 0, 0] = (width / 2) / half_tangent_x
    intrinsic[..., 1, 1] = (height / 2) / half_tangent_y
    intrinsic[..., 0, 2] = width / 2
    intrinsic[..., 1, 2] = height / 2
    intrinsic[..., 2, 2] = 1.0
    return extrinsic, intrinsic


def cameras_to_pose(extrinsic: Tensor, intrinsic: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Cameras to pose encodings; the inverse of `pose_to_cameras`.

    Args:
        extrinsic: [..., 3, 4].
        intrinsic: [..., 3, 3]; the principal point is not encoded.
        image_size: (H, W) in pixels.

    Returns:
        [..., 9].
    """
    height, width = image_size
    fov_y = 2 * torch.atan((height / 2) / intrinsic[..., 1, 1])
    fov_x = 2 * torch.atan((width / 2) / intrinsic[..., 0, 0])
    quaternion = matrix_to_quaternion(extrinsic[..., :3])
    return torch.cat((extrinsic[..., 3], quaternion, torch.stack((fov_y, fov_x), dim=-1)), dim=-1)


def invert_rigid(transform: Tensor) -> Tensor:
    """Invert rigid transforms, [..., 3, 4] or [..., 4, 4], to [..., 4, 4] in closed form: [R^T | -R^T t]."""
    if transform.shape[-2:] not in ((3, 4), (4, 4)):
        raise ValueError(f"Transforms have shape {list(transform.shape)}; give [..., 3, 4] or [..., 4, 4].")
    rotation_t = transform[..., :3, :3].mT
    translation = -rotation_t @ transform[..., :3, 3:]
    last_row = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=transform.dtype, device=transform.device)
    last_row = last_row.expand(*transform.shape[:-2], 1, 4)
    return torch.cat((torch.cat((rotation_t, translation), dim=-1), last_row), dim=-2)


def unproject_depth(depth: Tensor, extrinsic: Tensor, intrinsic: Tensor) -> Tensor:
    """Depth maps to points in the world.

    Args:
        depth: [..., H, W], along the camera's z axis.
        extrinsic: [..., 3, 4].
        intrinsic: [..., 3, 3] without skew, for images of H x W pixels.

    Returns:
        [..., H, W, 3] float64, in the unit of the depth.

    Raises:
        ValueError: the leading dimensions differ.
    """
    if not depth.shape[:-2] == extrinsic.shape[:-2] == intrinsic.shape[:-2]:
        shapes = [list(x.shape) for x in (depth, extrinsic, intrinsic)]
        raise ValueError(f"Depth, extrinsic and intrinsic have shapes {shapes}; give them equal leading dimensions.")
    depth, extrinsic, intrinsic = depth.double(), extrinsic.double(), intrinsic.double()
    v = torch.arange(depth.shape[-2], dtype=torch.float64, device=depth.device)[:, None]
    u = torch.arange(depth.shape[-1], dtype=torch.float64, device=depth.device)
    fx, fy, cx, cy = (intrinsic[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    in_camera = torch.stack(((u - cx) * depth / fx, (v - cy) * depth / fy, depth), dim=-1)
    moved = in_camera - extrinsic[..., None, None, :, 3]
    # Row vectors times R is R^T times columns: the inverse rotation.
    return (moved.flatten(-3, -2) @ extrinsic[..., :3]).view(moved.shape)


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle [...] between rotation matrices [..., 3, 3], 0 to pi.

    Both sine and cosine are used: arccos of the trace alone loses half of the digits of a small angle.
    """
    relative = first.mT @ second
    axis = torch.stack(
        (
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ),
        dim=-1,
    )
    trace = relative.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(axis.norm(dim=-1), trace - 1)


def direction_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle [...] between the directions of vectors [..., 3], 0 to pi; 0 where one vector is 0."""
    return torch.atan2(torch.linalg.cross(first, second).norm(dim=-1), (first * second).sum(-1))


def umeyama(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The similarity that brings points closest to others in the least-squares sense; never a reflection.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991. A point moves as
    `scale * rotation @ point + translation`; points in rows as `scale * points @ rotation.mT + translation`.

    Args:
        source: Points [N, 3], N >= 3.
        target: Their counterparts [N, 3], row by row.

    Returns:
        Scale [], rotation [3, 3], translation [3], all float64.

    Raises:
        ValueError: no rotation is determined. There are fewer than three points or one that is not finite; the points
            of a side lie on a line or in one place (their spread across it is below `COLLINEAR` of that along it, or
            below the rounding errors of their coordinates); or the sides do not correlate in two directions.
    """
    if source.ndim != 2 or source.shape[1] != 3 or target.shape != source.shape:
        shapes = f"{list(source.shape)} and {list(target.shape)}"
        raise ValueError(f"Source and target points have shapes {shapes}; give two of [N, 3].")
    if len(source) < 3:
        raise ValueError(f"{len(source)} pairs of points determine no similarity; give three or more.")
    _require_spread("source", source)
    _require_spread("target", target)
    source, target = source.double(), target.double()
    from_mean, to_mean = source.mean(0), target.mean(0)
    source, target = source - from_mean, target - to_mean
    u, strengths, vh = torch.linalg.svd(target.mT @ source)
    # Sides that match have at least COLLINEAR squared here; rounding leaves 1e-16.
    if strengths[1] <= 1e-12 * source.norm() * target.norm():
        raise ValueError("Source and target points do not correlate in two directions; pair each with its counterpart.")
    signs = torch.ones_like(strengths)
    signs[2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = u @ (signs[:, None] * vh)
    scale = (strengths * signs).sum() / source.square().sum()
    return scale, rotation, to_mean - scale * rotation @ from_mean


def _require_spread(side: str, points: Tensor) -> None:
    """Refuse points [N, 3] that do not span a plane."""
    rounding = torch.finfo(torch.promote_types(points.dtype, torch.float32)).eps
    points = points.double()
    bad = int((~torch.isfinite(points)).any(-1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(points)} {side} points are not finite; leave them out.")
    centred = points - points.mean(0)
    _, across, along = torch.linalg.eigvalsh(centred.mT @ centred).clamp_min(0).sqrt()
    if across <= max(COLLINEAR * along, rounding * points.norm()):
        raise ValueError(f"The {len(points)} {side} points lie on a line or in one place; give some beside it.")
