"""Rooms full of boxes and ellipsoids whose cameras, depths and points are known exactly, and photos of them.

Idea: a seed chooses a room, its objects, textures and lamp; cameras stand around a common target, so that their views
overlap; `raycasting` photographs them. Nothing comes from a photo, so the pictures are free of rights. The small
trained model was trained on such rooms, and its evaluation scenes are others of the same kind.

An object in which (or close to which) a camera would stand is absent.

Conventions: see `raycasting`: world z up, metres, OpenCV cameras from world.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vggt_quant.data.geometry import quaternion_to_matrix
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms
from vggt_quant.data.synthetic.textures import PATTERNS

MAX_OBJECTS = 14
FOV_DEGREES = (45.0, 75.0)
"""Horizontal field of view, the same for all cameras of a room."""
WALL_MARGIN = 0.35
"""Metres between a camera and a wall."""
OBJECT_MARGIN = 0.1
"""Metres between a camera and an object's bounding ball."""


class Draw:
    """Random numbers from a seed, on a device."""

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        """Uniform in [low, high)."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.generator.device)

    def integers(self, below: int, *shape: int) -> Tensor:
        """Whole numbers from 0."""
        return torch.randint(below, shape, generator=self.generator, device=self.generator.device)


def sample(num_rooms: int, num_views: int, draw: Draw, *, height: int, width: int) -> tuple[Rooms, Cameras]:
    """Furnish rooms and place cameras in them, for photos of height x width pixels."""
    with torch.device(draw.generator.device):
        rooms = furnish(num_rooms, draw)
        cameras = place_cameras(rooms, num_views, draw, height=height, width=width)
        return clear_of_cameras(rooms, cameras), cameras


def furnish(num_rooms: int, draw: Draw) -> Rooms:
    """Rooms with 8 to MAX_OBJECTS objects."""
    size = draw.uniform(torch.tensor([4.0, 4.0, 2.4]), torch.tensor([9.0, 9.0, 3.8]), num_rooms, 3)
    half = size * torch.tensor([0.5, 0.5, 0.0])
    num_surfaces = 6 + MAX_OBJECTS
    is_wall = torch.arange(num_surfaces) < 6
    wall_scales, object_scales = (
        draw.uniform(low, high, num_rooms, num_surfaces) for low, high in ((0.5, 2.5), (2.0, 7.0))
    )
    lamps = draw.uniform(torch.tensor([-0.3, -0.3, 0.75]), torch.tensor([0.3, 0.3, 0.95]), num_rooms, 3) * size
    return Rooms(
        corners=torch.stack([-half, size - half], dim=1),
        **_objects(size, draw),
        patterns=draw.integers(len(PATTERNS), num_rooms, num_surfaces),
        colors=_colors(num_rooms, num_surfaces, draw),
        scales=torch.where(is_wall, wall_scales, object_scales),
        offsets=draw.uniform(0, 100, num_rooms, num_surfaces, 3),
        lamps=lamps,
        lamp_colors=draw.uniform(0.9, 1.6, num_rooms, 1) * draw.uniform(0.75, 1.0, num_rooms, 3),
        ambients=draw.uniform(0.25, 0.5, num_rooms),
    )


def _objects(size: Tensor, draw: Draw) -> dict[str, Tensor]:
    """Objects for rooms of `size` [B, 3]: most stand upright on the floor, the others float, turned any way."""
    shape = (len(size), MAX_OBJECTS)
    largest = torch.exp(draw.uniform(math.log(0.15), math.log(0.8), *shape, 1))
    halves = largest * draw.uniform(0.45, 1.0, *shape, 3)
    floats = draw.uniform(0, 1, *shape) < 0.4
    upright = _about_z(draw.uniform(0, math.pi, *shape))
    x, y = draw.uniform(-0.38, 0.38, *shape, 2).mul(size[:, None, :2]).unbind(dim=-1)
    in_the_air = draw.uniform(0.15, 0.85, *shape) * size[:, None, 2]
    return {
        "centers": torch.stack([x, y, torch.where(floats, in_the_air, halves[..., 2])], dim=-1),
        "axes": torch.where(floats[..., None, None], _any_rotation(draw, *shape), upright),
        "halves": halves,
        "is_ball": draw.uniform(0, 1, *shape) < 0.4,
        "is_present": torch.arange(MAX_OBJECTS) < 8 + draw.integers(MAX_OBJECTS - 7, len(size), 1),
    }


def _about_z(angles: Tensor) -> Tensor:
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    entries = (cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1)
    return torch.stack(entries, dim=-1).view(*angles.shape, 3, 3)


def _any_rotation(draw: Draw, *shape: int) -> Tensor:
    quaternion = torch.randn(*shape, 4, generator=draw.generator, device=draw.generator.device)
    return quaternion_to_matrix(quaternion)


def _colors(num_rooms: int, num_surfaces: int, draw: Draw) -> Tensor:
    """Linear RGB pairs [B, P, 2, 3] of clearly different brightness."""
    bright = draw.uniform(0.35, 0.9, num_rooms, num_surfaces, 1, 1)
    dark = bright * draw.uniform(0.1, 0.5, num_rooms, num_surfaces, 1, 1)
    is_swapped = draw.uniform(0, 1, num_rooms, num_surfaces, 1, 1) < 0.5
    levels = torch.where(is_swapped, torch.cat([dark, bright], dim=2), torch.cat([bright, dark], dim=2))
    return levels * draw.uniform(0.3, 1.0, num_rooms, num_surfaces, 2, 3)


def place_cameras(rooms: Rooms, num_views: int, draw: Draw, *, height: int, width: int) -> Cameras:
    """Cameras around a target in the middle part of each room, turned towards it, within the walls."""
    num_rooms, (low, high) = len(rooms.corners), rooms.corners.unbind(dim=1)
    size = high - low
    target = draw.uniform(-0.2, 0.2, num_rooms, 1, 3) * size[:, None]
    target[..., 2] = draw.uniform(0.4, 1.4, num_rooms, 1)
    spread = draw.uniform(math.radians(20), math.radians(75), num_rooms, 1)
    azimuth = draw.uniform(0, 2 * math.pi, num_rooms, 1) + spread * draw.uniform(-1, 1, num_rooms, num_views)
    radius = draw.uniform(1.2, 3.6, num_rooms, 1) * draw.uniform(0.65, 1.35, num_rooms, num_views)
    around = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), torch.zeros_like(radius)], dim=-1)
    positions = target + around
    positions[..., 2] = draw.uniform(0.5, 2.2, num_rooms, num_views)
    positions = positions.clamp(min=low[:, None] + WALL_MARGIN, max=high[:, None] - WALL_MARGIN)
    looked_at = target + draw.uniform(-0.4, 0.4, num_rooms, num_views, 3)
    roll = draw.uniform(-0.12, 0.12, num_rooms, num_views)
    fov = torch.deg2rad(draw.uniform(*FOV_DEGREES, num_rooms, 1)).expand(-1, num_views)
    return Cameras(
        extrinsics=look_at(positions, looked_at, roll), intrinsics=intrinsics(fov, height=height, width=width)
    )


def look_at(positions: Tensor, targets: Tensor, roll: Tensor) -> Tensor:
    """Extrinsics [..., 3, 4] of cameras at positions [..., 3] that look at targets [..., 3]; roll in radians."""
    forward = normalize(targets - positions, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=positions.dtype, device=positions.device).expand_as(forward)
    right = normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    cos, sin = roll.cos()[..., None], roll.sin()[..., None]
    rotation = torch.stack([cos * right + sin * down, cos * down - sin * right, forward], dim=-2)
    translation = -(rotation * positions[..., None, :]).sum(dim=-1)
    return torch.cat([rotation, translation[..., None]], dim=-1)


def intrinsics(fov: Tensor, *, height: int, width: int) -> Tensor:
    """Intrinsics [..., 3, 3] of square pixels for horizontal fields of view [...] in radians."""
    matrix = torch.zeros(*fov.shape, 3, 3, dtype=fov.dtype, device=fov.device)
    matrix[..., 0, 0] = matrix[..., 1, 1] = width / 2 / torch.tan(fov / 2)
    matrix[..., 0, 2], matrix[..., 1, 2], matrix[..., 2, 2] = width / 2, height / 2, 1.0
    return matrix


def clear_of_cameras(rooms: Rooms, cameras: Cameras) -> Rooms:
    """The rooms without the objects in whose bounding ball, or within OBJECT_MARGIN of it, a camera stands."""
    distance = (rooms.centers[:, :, None] - cameras.positions[:, None]).norm(dim=-1)
    reach = rooms.halves.norm(dim=-1) + OBJECT_MARGIN
    return replace(rooms, is_present=rooms.is_present & (distance > reach[..., None]).all(dim=-1))
