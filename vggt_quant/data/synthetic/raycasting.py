"""A small ray caster for closed rooms of boxes and ellipsoids with procedural textures, in plain PyTorch.

Idea: every pixel casts a ray, the nearest surface wins, and a solid texture, a lamp and its shadow colour it. Surfaces
are matte, so a point has the same colour in every view; the room is closed, so every pixel has a depth. All rooms of a
batch are cast at once, without a branch or a shape that depends on data, so the same code runs on a CPU, on a GPU, and
compiled.

Conventions: world z is up, in metres; cameras are OpenCV's (x right, y down, z forward), camera from world; the ray
of the pixel (u, v), whole numbers, is K^-1 (u, v, 1), as VGGT unprojects. Ray directions have camera z = 1, so that
the ray parameter is the z-depth.

Shapes: B rooms, V views of each, N rays of a view, K objects of a room, P surfaces = 6 room faces + K, in this order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt_quant.data.synthetic.textures import noise, pattern_shares

NEAR = 1e-3
"""Metres along a ray that count as its start, so that a shadow ray does not meet its own surface."""
TINY = 1e-9
"""Stands for a direction's zero, so that no division gives NaN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rooms:
    """B furnished rooms, lengths in metres.

    Attributes:
        corners: [B, 2, 3] lowest and highest corner.
        centers: [B, K, 3] of the objects.
        axes: [B, K, 3, 3] an object's own axes as rows: a rotation from world axes into them.
        halves: [B, K, 3] half of its extent along each.
        is_ball: [B, K] ellipsoid, else box.
        is_present: [B, K]; an absent object is not there, whatever its numbers.
        patterns: [B, P] index into `textures.PATTERNS`.
        colors: [B, P, 2, 3] the two linear RGB colours of a pattern.
        scales: [B, P] pattern cells per metre.
        offsets: [B, P, 3] where the pattern starts, in cells.
        lamps: [B, 3] the lamp's place.
        lamp_colors: [B, 3] linear RGB of its light.
        ambients: [B] light from everywhere.
    """

    corners: Tensor
    centers: Tensor
    axes: Tensor
    halves: Tensor
    is_ball: Tensor
    is_present: Tensor
    patterns: Tensor
    colors: Tensor
    scales: Tensor
    offsets: Tensor
    lamps: Tensor
    lamp_colors: Tensor
    ambients: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras:
    """V pinhole cameras in each room: extrinsics [B, V, 3, 4], camera from world; intrinsics [B, V, 3, 3] in pixels."""

    extrinsics: Tensor
    intrinsics: Tensor

    @property
    def positions(self) -> Tensor:
        """The optical centres [B, V, 3] in world coordinates."""
        return -(self.extrinsics[..., :3] * self.extrinsics[..., 3:]).sum(dim=-2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """Where rays end.

    Attributes:
        depths: [B, V, N] along the ray.
        surfaces: [B, V, N] index.
        normals: [B, V, N, 3] in world axes, towards the ray's side.
        places: [B, V, N, 3] on the surface: the point in the axes of its room or object.
    """

    depths: Tensor
    surfaces: Tensor
    normals: Tensor
    places: Tensor


def render(rooms: Rooms, cameras: Cameras, height: int, width: int, *, supersample: int = 2) -> dict[str, Tensor]:
    """Photograph rooms.

    Returns:
        rgb [B, V, 3, H, W] in [0, 1], the mean over supersample^2 rays of a pixel; and, from the ray of the whole
        pixel coordinates alone, z-depth `depth` [B, V, H, W] and `world_points` [B, V, H, W, 3] in metres.
    """
    offsets = [(index + 0.5) / supersample - 0.5 for index in range(supersample)]
    color = torch.zeros((), device=rooms.corners.device)
    for dy, dx in itertools.product(offsets, offsets):
        color = color + shade(rooms, cameras.positions, pixel_directions(cameras, height, width, dx, dy))
    rgb = (color / supersample**2).clamp(0, 1).pow(1 / 2.2)
    directions = pixel_directions(cameras, height, width)
    depth = cast(rooms, cameras.positions, directions).depths
    points = cameras.positions[:, :, None] + depth[..., None] * directions
    return {
        "rgb": rgb.movedim(-1, -2).unflatten(-1, (height, width)),
        "depth": depth.unflatten(-1, (height, width)),
        "world_points": points.unflatten(-2, (height, width)),
    }


def pixel_directions(cameras: Cameras, height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """World directions [B, V, H * W, 3] of the pixels' rays, moved by a part of a pixel; camera z is 1 in each."""
    device = cameras.extrinsics.device
    v, u = torch.meshgrid(
        torch.arange(height, device=device) + dy, torch.arange(width, device=device) + dx, indexing="ij"
    )
    fx, fy, cx, cy = (cameras.intrinsics[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return to_world(cameras, torch.stack([(u.flatten() - cx) / fx, (v.flatten() - cy) / fy], dim=-1))


def to_world(cameras: Cameras, xy: Tensor) -> Tensor:
    """Turn camera directions (x, y, 1), given as xy [B, V, N, 2], into world directions [B, V, N, 3]."""
    rotation = cameras.extrinsics[..., None, :, :3]
    return xy[..., :1] * rotation[..., 0, :] + xy[..., 1:] * rotation[..., 1, :] + rotation[..., 2, :]


def cast(rooms: Rooms, origins: Tensor, directions: Tensor) -> Hits:
    """Find what the rays from `origins` [B, V, 3] along `directions` [B, V, N, 3] meet first."""
    origins = origins[:, :, None]
    depths, winners = _nearest_object(rooms, origins, directions)
    exits, faces, inward = _room_exit(rooms, origins, directions)
    is_object = depths < exits
    depths = torch.where(is_object, depths, exits)
    points = origins + depths[..., None] * directions
    axes, centers, halves, is_ball = (
        _pick(t, winners) for t in (rooms.axes, rooms.centers, rooms.halves, rooms.is_ball)
    )
    local = (axes * (points - centers)[..., None, :]).sum(dim=-1)
    outward = _outward(local / halves, halves, is_ball)
    normals = torch.where(is_object[..., None], (axes * outward[..., None]).sum(dim=-2), inward)
    return Hits(
        depths=depths,
        surfaces=torch.where(is_object, winners + 6, faces),
        normals=normals,
        places=torch.where(is_object[..., None], local, points - rooms.corners[:, 0, None, None]),
    )


def _pick(table_BK: Tensor, index_BVN: Tensor) -> Tensor:
    """[B, V, N, ...]: the rows of each room's table [B, K, ...] that the indices name."""
    batch = torch.arange(len(table_BK), device=table_BK.device)[:, None, None]
    return table_BK[batch, index_BVN]


def _nearest_object(rooms: Rooms, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest object's depth [B, V, N] (infinity where there is none) and its number.

    In its own axes and half extents every object is a cube or ball of half 1.
    """
    to_unit = rooms.axes / rooms.halves[..., None]
    centers = (to_unit * rooms.centers[..., None, :]).sum(dim=-1)
    start = [moved - center for moved, center in zip(_turn(to_unit, origins), _per_object(centers), strict=True)]
    step = _turn(to_unit, directions)
    (is_ball,), (is_present,) = _per_object(rooms.is_ball[..., None]), _per_object(rooms.is_present[..., None])
    depth = torch.where(is_ball, _ball_entry(start, step), _cube_entry(start, step))
    nearest = torch.where(is_present, depth, torch.inf).min(dim=1)
    return nearest.values, nearest.indices


def _per_object(values_BKC: Tensor) -> list[Tensor]:
    """C tensors [B, K, 1, 1] that broadcast over the views and rays of each room."""
    return [value[:, :, None, None] for value in values_BKC.unbind(dim=-1)]


def _turn(matrix_BK33: Tensor, vectors_BVN3: Tensor) -> list[Tensor]:
    """Three coordinates [B, K, V, N] of matrix times vector; written out, so that it is fused and no TF32 enters."""
    x, y, z = (part.contiguous()[:, None] for part in vectors_BVN3.unbind(dim=-1))
    rows = (_per_object(matrix_BK33[..., i, :]) for i in range(3))
    return [a * x + b * y + c * z for a, b, c in rows]


def _cube_entry(start: list[Tensor], step: list[Tensor]) -> Tensor:
    enter: Tensor | None = None
    leave: Tensor | None = None
    for origin, direction in zip(start, step, strict=True):
        inverse = 1 / torch.where(direction.abs() < TINY, TINY, direction)
        low, high = -origin * inverse - inverse.abs(), -origin * inverse + inverse.abs()
        enter = low if enter is None else torch.maximum(enter, low)
        leave = high if leave is None else torch.minimum(leave, high)
    assert enter is not None and leave is not None
    return torch.where((enter < leave) & (enter > NEAR), enter, torch.inf)


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    x, y, z = (one * other for one, other in zip(left, right, strict=True))
    return x + y + z


def _ball_entry(start: list[Tensor], step: list[Tensor]) -> Tensor:
    a, b, c = _dot(step, step), _dot(start, step), _dot(start, start) - 1
    discriminant = b * b - a * c
    enter = (-b - discriminant.clamp(min=0).sqrt()) / a
    return torch.where((discriminant > 0) & (enter > NEAR), enter, torch.inf)


def _room_exit(rooms: Rooms, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth [B, V, N] where rays from inside meet the room, the face (2 * axis, plus 1 if high), the normal inwards."""
    low, high = rooms.corners[:, 0, None, None], rooms.corners[:, 1, None, None]
    directions = torch.where(directions.abs() < TINY, TINY, directions)
    exits, axis = (torch.where(directions > 0, high - origins, low - origins) / directions).min(dim=-1)
    one_hot = torch.arange(3, device=axis.device) == axis[..., None]
    inward = torch.where(one_hot, -directions.sign(), 0.0)
    return exits, 2 * axis + (inward.sum(dim=-1) < 0), inward


def _outward(unit: Tensor, halves: Tensor, is_ball: Tensor) -> Tensor:
    """Normals [..., 3] in an object's axes at points given in its half extents."""
    size = unit.abs()
    flat = torch.where(size == size.amax(dim=-1, keepdim=True), unit.sign(), 0.0)
    round_ = unit / halves
    return torch.nn.functional.normalize(torch.where(is_ball[..., None], round_, flat), dim=-1)


def shade(rooms: Rooms, positions: Tensor, directions: Tensor) -> Tensor:
    """Linear RGB [B, V, N, 3] of the rays that leave `positions` [B, V, 3]."""
    hits = cast(rooms, positions, directions)
    points = positions[:, :, None] + hits.depths[..., None] * directions
    return albedo(rooms, hits) * _light(rooms, points, hits.normals)


def _light(rooms: Rooms, points: Tensor, normals: Tensor) -> Tensor:
    """The light [B, V, N, 3] that arrives at points: some from everywhere, the rest from the lamp if in sight."""
    starts = points + 2 * NEAR * normals
    towards = rooms.lamps[:, None, None] - starts
    distance = towards.norm(dim=-1)
    strength = (normals * towards).sum(dim=-1).clamp(min=0) / distance / (1 + 0.1 * distance.square())
    in_sight = _nearest_object(rooms, starts, towards)[0] > 1
    everywhere = rooms.ambients[:, None, None] * (1 + 0.25 * normals[..., 2])
    return everywhere[..., None] + torch.where(in_sight, strength, 0.0)[..., None] * rooms.lamp_colors[:, None, None]


def albedo(rooms: Rooms, hits: Hits) -> Tensor:
    """The surface colour [B, V, N, 3]: a pattern mixes two colours, and a fine grain varies both."""
    scales, offsets = _pick(rooms.scales, hits.surfaces), _pick(rooms.offsets, hits.surfaces)
    cells = hits.places * scales[..., None] + offsets
    pattern, mix = _pick(rooms.patterns, hits.surfaces), torch.zeros_like(scales)
    for index, share in enumerate(pattern_shares(cells)):
        mix = torch.where(pattern == index, share, mix)
    first, second = _pick(rooms.colors, hits.surfaces).unbind(dim=-2)
    grain = 0.75 + 0.5 * noise(hits.places * 4 + offsets, octaves=2)
    return (first + (second - first) * mix[..., None]) * grain[..., None]
