"""A small ray caster for closed rooms of boxes and balls with procedural textures, in plain PyTorch.

Idea: every pixel casts a ray, the nearest surface wins, and a texture, two lamps and their soft shadows colour it.
Surfaces are matte, so a point has the same colour in every view; the room is closed, so every pixel has a depth.

Conventions: world z is up, in metres; cameras are OpenCV's (x right, y down, z forward), camera from world; the ray
of the pixel (u, v), whole numbers, is K^-1 (u, v, 1), as VGGT unprojects. Ray directions have camera z = 1, so that
the ray parameter is the z-depth.

Shapes: N rays, K boxes, M balls, L lamp samples, P surfaces = 6 room faces + K + M, in this order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

RAYS_AT_A_TIME = 1 << 15
NEAR = 1e-4
"""Metres along a ray that count as its start, so that a shadow ray does not meet its own surface."""

PATTERNS = ("plaster", "checker", "stripes", "bricks", "planks", "tiles", "dots", "marble")


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A pinhole camera: extrinsic [3, 4] from world to OpenCV camera coordinates, intrinsic [3, 3] in pixels."""

    extrinsic: Tensor
    intrinsic: Tensor

    @property
    def position(self) -> Tensor:
        """The optical centre [3] in world coordinates."""
        return -self.extrinsic[:, :3].T @ self.extrinsic[:, 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A furnished room, lengths in metres.

    Attributes:
        room: [2, 3] lowest and highest corner.
        box_centers: [K, 3].
        box_halves: [K, 3] half of each side.
        box_yaws: [K] rotation about z in radians.
        ball_centers: [M, 3].
        ball_radii: [M].
        patterns: [P] index into PATTERNS.
        colors: [P, 2, 3] the two linear RGB colours of a pattern.
        scales: [P] pattern cells per metre.
        lamps: [L, J, 3] points of each lamp; the rays of a pixel take turns with them, which makes shadows soft.
        lamp_colors: [L, 3] linear RGB.
    """

    room: Tensor
    box_centers: Tensor
    box_halves: Tensor
    box_yaws: Tensor
    ball_centers: Tensor
    ball_radii: Tensor
    patterns: Tensor
    colors: Tensor
    scales: Tensor
    lamps: Tensor
    lamp_colors: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """Where rays end: depths [N], surfaces [N] (index), normals [N, 3] towards the ray, uv [N, 2] on the surface."""

    depths: Tensor
    surfaces: Tensor
    normals: Tensor
    uv: Tensor


def render(scene: Scene, camera: Camera, height: int, width: int, *, supersample: int = 2) -> dict[str, Tensor]:
    """Photograph a scene.

    Returns:
        rgb [3, H, W] in [0, 1], the mean over supersample^2 rays of a pixel; and, from the ray of the whole pixel
        coordinates alone, z-depth `depth` [H, W] and `world_points` [H, W, 3] in metres.
    """
    offsets = ((torch.arange(supersample) + 0.5) / supersample - 0.5).tolist()
    color = torch.zeros(height * width, 3)
    for index, (dy, dx) in enumerate(itertools.product(offsets, offsets)):
        color += _colors(scene, camera.position, pixel_directions(camera, height, width, dx, dy), index)
    rgb = (color / supersample**2).clamp(0, 1).pow(1 / 2.2)
    directions = pixel_directions(camera, height, width)
    depth = torch.cat([cast(scene, camera.position, part).depths for part in directions.split(RAYS_AT_A_TIME)])
    points = camera.position + depth[:, None] * directions
    return {
        "rgb": rgb.T.reshape(3, height, width),
        "depth": depth.reshape(height, width),
        "world_points": points.reshape(height, width, 3),
    }


def pixel_directions(camera: Camera, height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """Return world directions [H * W, 3], row-major, of the rays through (u + dx, v + dy)."""
    dtype = camera.intrinsic.dtype
    v, u = torch.meshgrid(torch.arange(height, dtype=dtype), torch.arange(width, dtype=dtype), indexing="ij")
    pixels = torch.stack([u + dx, v + dy, torch.ones_like(u)], dim=-1).reshape(-1, 3)
    return pixels @ torch.linalg.inv(camera.intrinsic).T @ camera.extrinsic[:, :3]


def cast(scene: Scene, origin: Tensor, directions: Tensor) -> Hits:
    """Follow rays [N, 3] from `origin` [3], which lies inside the room and outside its furniture."""
    origins = origin.expand_as(directions)
    walls = torch.where(directions > 0, scene.room[1], scene.room[0])
    room_depths = ((walls - origin) / directions).nan_to_num(nan=torch.inf).amin(dim=1)
    candidates = [room_depths[None], _box_depths(scene, origins, directions), _ball_depths(scene, origins, directions)]
    depths, winners = torch.cat(candidates).min(dim=0)
    normals, uv, surfaces = torch.empty_like(directions), torch.empty_like(directions[:, :2]), winners + 5
    points = origin + depths[:, None] * directions
    num_boxes = len(scene.box_yaws)
    rows = (winners == 0).nonzero()[:, 0]
    outward, uv[rows], faces = _box_faces(points[rows] - scene.room.mean(dim=0), scene.room.diff(dim=0) / 2)
    normals[rows], surfaces[rows] = -outward, faces
    rows = ((winners > 0) & (winners <= num_boxes)).nonzero()[:, 0]
    box = winners[rows] - 1
    local = _rotate_about_z(points[rows] - scene.box_centers[box], scene.box_yaws[box])
    outward, uv[rows], _ = _box_faces(local, scene.box_halves[box])
    normals[rows] = _rotate_about_z(outward, -scene.box_yaws[box])
    rows = (winners > num_boxes).nonzero()[:, 0]
    ball = winners[rows] - 1 - num_boxes
    normals[rows] = (points[rows] - scene.ball_centers[ball]) / scene.ball_radii[ball, None]
    uv[rows] = _longitude_and_latitude(normals[rows]) * scene.ball_radii[ball, None]
    return Hits(depths=depths, surfaces=surfaces, normals=normals, uv=uv)


def _box_depths(scene: Scene, origins: Tensor, directions: Tensor) -> Tensor:
    """Return where rays enter boxes [K, N], infinity where they miss: the slab method in each box's own axes."""
    cos, sin = scene.box_yaws.cos()[:, None], scene.box_yaws.sin()[:, None]
    x, y, z = (origins[:, axis] - scene.box_centers[:, axis, None] for axis in range(3))
    dx, dy, dz = directions.unbind(dim=1)
    local = ((cos * x + sin * y, cos * dx + sin * dy), (cos * y - sin * x, cos * dy - sin * dx), (z, dz[None]))
    enter, leave = torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf)
    for axis, (start, step) in enumerate(local):
        inverse = 1 / step
        middle, half = -start * inverse, scene.box_halves[:, axis, None] * inverse.abs()
        enter, leave = torch.maximum(enter, middle - half), torch.minimum(leave, middle + half)
    return torch.where((enter < leave) & (enter > NEAR), enter, torch.inf)


def _ball_depths(scene: Scene, origins: Tensor, directions: Tensor) -> Tensor:
    """Return where rays enter balls [M, N], infinity where they miss."""
    from_center = origins - scene.ball_centers[:, None]
    a = directions.square().sum(dim=1)
    b = (from_center * directions).sum(dim=2)
    c = from_center.square().sum(dim=2) - scene.ball_radii.square()[:, None]
    discriminant = b.square() - a * c
    enter = (-b - discriminant.clamp(min=0).sqrt()) / a
    return torch.where((discriminant > 0) & (enter > NEAR), enter, torch.inf)


def _box_faces(points: Tensor, halves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return outward normals [n, 3], uv [n, 2] and face (2 * axis, plus 1 on the high side) of points on a box."""
    axis = (points / halves).abs().argmax(dim=1)
    signs = points.gather(1, axis[:, None]).sign()
    normals = torch.zeros_like(points).scatter(1, axis[:, None], signs)
    u = torch.where(axis == 0, points[:, 1], points[:, 0])
    v = torch.where(axis == 2, points[:, 1], points[:, 2])
    return normals, torch.stack([u, v], dim=1), 2 * axis + (signs[:, 0] > 0)


def _rotate_about_z(vectors: Tensor, yaws: Tensor) -> Tensor:
    """Turn vectors [n, 3] from world axes into those of objects with yaws [n]."""
    cos, sin = yaws.cos(), yaws.sin()
    x, y, z = vectors.unbind(dim=1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=1)


def _longitude_and_latitude(normals: Tensor) -> Tensor:
    x, y, z = normals.unbind(dim=1)
    return torch.stack([torch.atan2(y, x), z.clamp(-1, 1).asin()], dim=1)


def _colors(scene: Scene, position: Tensor, directions: Tensor, lamp_point: int) -> Tensor:
    """Return linear RGB [N, 3] of the rays that leave `position` [3]; one point of each lamp casts the shadows."""
    lamps = scene.lamps[:, lamp_point % scene.lamps.shape[1]]
    colors = []
    for part in directions.split(RAYS_AT_A_TIME):
        hits = cast(scene, position, part)
        points = position + hits.depths[:, None] * part
        colors.append(_albedo(scene, hits) * _light(scene, lamps, points, hits.normals))
    return torch.cat(colors)


def _light(scene: Scene, lamps: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    """Return the light [N, 3] that arrives at points: a little from everywhere, the rest from lamps [L, 3] in sight."""
    height = ((points[:, 2] - scene.room[0, 2]) / (scene.room[1, 2] - scene.room[0, 2])).clamp(0, 1)
    light = (0.13 + 0.05 * normals[:, 2] + 0.07 * height)[:, None].expand(-1, 3).clone()
    starts = points + 2 * NEAR * normals
    for lamp, lamp_color in zip(lamps, scene.lamp_colors, strict=True):
        towards = lamp - starts
        distance = towards.norm(dim=1)
        strength = (normals * towards).sum(dim=1).clamp(min=0) / distance / (1 + 0.12 * distance.square())
        nearest = torch.cat([_box_depths(scene, starts, towards), _ball_depths(scene, starts, towards)]).amin(dim=0)
        light += torch.where(nearest < 1, 0, strength)[:, None] * lamp_color
    return light


def _albedo(scene: Scene, hits: Hits) -> Tensor:
    """Return the surface colour [N, 3]: a pattern mixes two colours, and a fine grain varies both."""
    scaled = hits.uv * scene.scales[hits.surfaces, None]
    mix = torch.zeros_like(hits.depths)
    for index, pattern in enumerate(PATTERNS):
        rows = (scene.patterns[hits.surfaces] == index).nonzero()[:, 0]
        mix[rows] = _pattern(pattern, scaled[rows], hits.surfaces[rows])
    first, second = scene.colors[hits.surfaces].unbind(dim=1)
    grain = 0.8 + 0.4 * _noise(hits.uv * 5 + 40, hits.surfaces, octaves=4)
    return torch.lerp(first, second, mix[:, None]) * grain[:, None]


def _pattern(name: str, uv: Tensor, seeds: Tensor) -> Tensor:
    """Return the share [N] of the second colour at uv [N, 2], one unit a cell; seeds [N] vary the noise."""
    u, v = uv.unbind(dim=1)
    if name == "checker":
        return ((u.floor() + v.floor()) % 2).to(uv.dtype)
    if name == "stripes":
        return (u % 1 < 0.5).to(uv.dtype)
    if name == "dots":
        return (((uv % 1) - 0.5).norm(dim=1) < 0.3).to(uv.dtype)
    if name == "marble":
        return 0.5 + 0.5 * torch.sin(4 * (u + v) + 9 * _noise(uv * 0.8, seeds, octaves=4))
    if name == "plaster":
        return _noise(uv * 2, seeds, octaves=3)
    cells = uv * torch.tensor([1.0, 0.35 if name == "planks" else 1.0 if name == "tiles" else 2.0], dtype=uv.dtype)
    if name != "tiles":  # neighbouring rows are shifted, so that joints do not line up
        across, along = (0, 1) if name == "planks" else (1, 0)
        cells[:, along] += 0.5 * (cells[:, across].floor() % 2)
    width = torch.tensor([0.04, 0.02] if name == "planks" else [0.05, 0.1] if name == "bricks" else [0.04, 0.04])
    joint = (cells % 1 < width).any(dim=1)
    tone = _hash(cells[:, 0].floor().long(), cells[:, 1].floor().long(), seeds)
    fibre = _noise(uv * torch.tensor([9.0, 1.0] if name == "planks" else [4.0, 4.0]), seeds, octaves=2)
    return torch.where(joint, 1.0, 0.45 * tone + 0.25 * fibre)


def _noise(uv: Tensor, seeds: Tensor, *, octaves: int) -> Tensor:
    """Return smooth random values [N] in [0, 1]: interpolated lattice noise, halved in size and strength repeatedly."""
    total, weight = torch.zeros_like(uv[:, 0]), 0.0
    for octave in range(octaves):
        scaled = uv * 2**octave
        cell = scaled.floor()
        x, y = (scaled - cell).unbind(dim=1)
        x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
        i, j = cell.long().unbind(dim=1)
        low = torch.lerp(_hash(i, j, seeds), _hash(i + 1, j, seeds), x)
        high = torch.lerp(_hash(i, j + 1, seeds), _hash(i + 1, j + 1, seeds), x)
        total += torch.lerp(low, high, y) * 0.5**octave
        weight += 0.5**octave
    return total / weight


def _hash(i: Tensor, j: Tensor, seeds: Tensor) -> Tensor:
    """Return a random value [N] in [0, 1) for each whole cell and seed."""
    bits = (i * 374761393 + j * 668265263 + seeds * 974634321) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 13)) * 1274126177) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 16)) * 1103515245) & 0xFFFFFFFF
    return ((bits >> 8) & 0xFFFF).to(torch.get_default_dtype()) / 65536
