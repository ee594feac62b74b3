"""Draws photos of furnished rooms whose cameras, depths and points are known exactly.

Idea: a seed chooses a room, its furniture, its textures and its lamps; cameras stand on an arc and look at the middle,
so that their views overlap; `raycasting` photographs it. Nothing comes from a photo, so the pictures are free of
rights. Cameras keep a distance from the middle that no furniture reaches, so that none stands inside an object.

Conventions: see `raycasting`: world z up, metres, OpenCV cameras from world.
"""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vggt_quant.raycasting import PATTERNS, Camera, Scene, render

__all__ = ["Camera", "Scene", "build_scene", "draw_scene", "look_at", "orbit", "render"]

ARC_DEGREES = 75
FOV_DEGREES = 68
"""Horizontal field of view."""

PALETTE = (
    (0.72, 0.16, 0.10), (0.10, 0.34, 0.62), (0.92, 0.66, 0.14), (0.13, 0.46, 0.26), (0.86, 0.80, 0.66),
    (0.48, 0.26, 0.12), (0.30, 0.16, 0.42), (0.10, 0.50, 0.52), (0.85, 0.42, 0.18), (0.16, 0.18, 0.24),
    (0.80, 0.52, 0.56), (0.62, 0.70, 0.36),
)  # fmt: skip
"""Linear RGB of furniture and toys."""

PALE = ((0.80, 0.76, 0.66), (0.66, 0.74, 0.76), (0.82, 0.68, 0.56), (0.70, 0.76, 0.62), (0.78, 0.72, 0.80))
WOOD = ((0.46, 0.25, 0.11), (0.60, 0.38, 0.18), (0.34, 0.17, 0.08))
DARK = (0.09, 0.07, 0.06)

Color = tuple[float, float, float]
Surface = tuple[str, Color, Color, float]
"""Pattern, first colour, second colour, pattern cells per metre."""

Box = tuple[tuple[float, float, float], tuple[float, float, float], float, Surface]
"""Centre, half sides, yaw, surface."""

Ball = tuple[tuple[float, float, float], float, Surface]
"""Centre, radius, surface."""


def draw_scene(
    folder: str | Path, *, num_images: int = 4, size: tuple[int, int] = (360, 240), seed: int = 0
) -> list[Path]:
    """Draw `num_images` overlapping views of the room `seed` as PNG files of `size` (width, height) in pixels.

    Each file is written whole or not at all; existing files of the same name are replaced.

    Raises:
        ValueError: a size or the count is not positive.
    """
    if num_images < 1 or min(size) < 1:
        raise ValueError(f"Cannot draw {num_images} images of size {size}; give positive numbers.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    scene, paths = build_scene(seed), []
    for index, camera in enumerate(orbit(num_images, height, width, seed=seed)):
        pixels = render(scene, camera, height, width)["rgb"].mul(255).round().to(torch.uint8).permute(1, 2, 0)
        path = folder / f"view_{index:03d}.png"
        unfinished = path.with_suffix(".png.incomplete")
        Image.fromarray(pixels.contiguous().numpy()).save(unfinished, format="PNG")
        os.replace(unfinished, path)
        paths.append(path)
    return paths


def orbit(num_images: int, height: int, width: int, *, seed: int) -> list[Camera]:
    """Return cameras on an arc around the middle of the room, which all of them see."""
    draw = random.Random(f"cameras {seed}")
    start = draw.uniform(0, 360)
    cameras = []
    for index in range(num_images):
        angle = math.radians(start + ARC_DEGREES * index / max(num_images - 1, 1))
        radius = draw.uniform(2.25, 2.5)
        position = torch.tensor([radius * math.cos(angle), radius * math.sin(angle), draw.uniform(1.3, 1.75)])
        target = torch.tensor([draw.uniform(-0.2, 0.2), draw.uniform(-0.2, 0.2), draw.uniform(0.7, 0.9)])
        roll = draw.uniform(-0.05, 0.05)
        cameras.append(look_at(position, target, fov=math.radians(FOV_DEGREES), roll=roll, height=height, width=width))
    return cameras


def look_at(position: Tensor, target: Tensor, *, fov: float, roll: float, height: int, width: int) -> Camera:
    """Return the camera at `position` [3] that sees `target` [3] in its centre; horizontal `fov`, `roll` in radians."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=position.dtype)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    cos, sin = math.cos(roll), math.sin(roll)
    rotation = torch.stack([cos * right + sin * down, cos * down - sin * right, forward])
    focal = width / 2 / math.tan(fov / 2)
    intrinsic = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=position.dtype)
    return Camera(extrinsic=torch.cat([rotation, -(rotation @ position)[:, None]], dim=1), intrinsic=intrinsic)


def build_scene(seed: int) -> Scene:
    """Furnish the room that `seed` stands for."""
    draw = random.Random(f"room {seed}")
    half_x, half_y, height = draw.uniform(3.0, 3.6), draw.uniform(2.9, 3.4), draw.uniform(2.6, 3.0)
    top = draw.uniform(0.62, 0.75)
    boxes = _table(draw, top) + _wall_furniture(draw, half_x, half_y)
    toy_boxes, balls = _toys(draw, top)
    boxes += toy_boxes
    surfaces = [*_room_surfaces(draw), *(box[3] for box in boxes), *(ball[2] for ball in balls)]
    lamps, lamp_colors = _lamps(draw, height)
    return Scene(
        room=torch.tensor([[-half_x, -half_y, 0.0], [half_x, half_y, height]]),
        box_centers=torch.tensor([box[0] for box in boxes]),
        box_halves=torch.tensor([box[1] for box in boxes]),
        box_yaws=torch.tensor([box[2] for box in boxes]),
        ball_centers=torch.tensor([ball[0] for ball in balls]),
        ball_radii=torch.tensor([ball[1] for ball in balls]),
        patterns=torch.tensor([PATTERNS.index(surface[0]) for surface in surfaces]),
        colors=torch.tensor([surface[1:3] for surface in surfaces]),
        scales=torch.tensor([surface[3] for surface in surfaces]),
        lamps=lamps,
        lamp_colors=lamp_colors,
    )


def _room_surfaces(draw: random.Random) -> list[Surface]:
    """The walls at low x, high x, low y, high y, then floor and ceiling."""
    pale = draw.sample(PALE, 2)
    papers: list[Surface] = [
        ("plaster", pale[0], _shade(pale[0], 0.72), 1.3),
        ("stripes", pale[0], _shade(pale[0], 0.84), draw.uniform(2.5, 4)),
        ("bricks", (0.52, 0.24, 0.16), (0.70, 0.66, 0.60), draw.uniform(3, 4)),
        ("marble", pale[1], _shade(pale[1], 0.78), 0.7),
    ]
    draw.shuffle(papers)
    floor: Surface = ("planks", draw.choice(WOOD), DARK, 6.0)
    if draw.random() < 0.4:
        floor = ("tiles", draw.choice(PALE), (0.3, 0.28, 0.26), draw.uniform(2, 3))
    return [*papers, floor, ("plaster", (0.82, 0.82, 0.80), (0.72, 0.72, 0.70), 1.0)]


def _table(draw: random.Random, top: float) -> list[Box]:
    """A rug, a table top at height `top` and four legs."""
    yaw, half_x, half_y = draw.uniform(0, math.pi), draw.uniform(0.55, 0.75), draw.uniform(0.4, 0.5)
    wood: Surface = ("planks", draw.choice(WOOD), DARK, 5.0)
    legs = []
    for sign_x, sign_y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        x, y = sign_x * (half_x - 0.07), sign_y * (half_y - 0.07)
        center = (x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw), top / 2 - 0.02)
        legs.append((center, (0.035, 0.035, top / 2 - 0.02), yaw, wood))
    rug: Box = (
        (0, 0, 0.008),
        (1.45, 1.05, 0.008),
        yaw + draw.uniform(-0.3, 0.3),
        _bright(draw, ("checker", "stripes")),
    )
    return [rug, ((0, 0, top - 0.02), (half_x, half_y, 0.02), yaw, wood), *legs]


def _toys(draw: random.Random, top: float) -> tuple[list[Box], list[Ball]]:
    """Boxes and balls on the table and, around it, on the floor; none reaches the cameras' arc."""
    boxes: list[Box] = []
    balls: list[Ball] = []
    slots = [(0.27, 120 * k + draw.uniform(-25, 25), top, 0.11) for k in range(3)]
    slots += [(draw.uniform(1.15, 1.45), 60 * k + draw.uniform(-15, 15), 0.016, 0.22) for k in range(6)]
    for index, (radius, degrees, base, largest) in enumerate(slots):
        x, y = radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))
        size = draw.uniform(0.65, 1.0) * largest
        if index % 2:
            balls.append(
                ((x, y, base + size), size, _bright(draw, ("checker", "dots", "marble", "stripes"), 0.09 / size))
            )
        else:
            half = (size, size * draw.uniform(0.6, 1), size * draw.uniform(0.7, 1.5))
            surface = _bright(draw, PATTERNS, 0.09 / size)
            boxes.append(((x, y, base + half[2]), half, draw.uniform(0, math.pi), surface))
    return boxes, balls


def _wall_furniture(draw: random.Random, half_x: float, half_y: float) -> list[Box]:
    """A cabinet, a shelf board and two framed pictures on each wall."""
    boxes: list[Box] = []
    for k, (distance, length) in enumerate(((half_x, half_y), (half_y, half_x)) * 2):
        yaw = k * math.pi / 2
        side = draw.choice((-1, 1))

        def place(
            along: float, depth: float, z: float, yaw: float = yaw, wall: float = distance
        ) -> tuple[float, float, float]:
            x, y = wall - depth, along
            return (x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw), z)

        tall = draw.uniform(0.35, 0.5)
        wood: Surface = ("planks", draw.choice(WOOD), DARK, 4.0)
        boxes.append((place(side * length * 0.55, 0.2, tall), (0.19, draw.uniform(0.5, 0.7), tall), yaw, wood))
        for along in (side * length * 0.5, -side * length * 0.35):
            half, z = (draw.uniform(0.28, 0.5), draw.uniform(0.24, 0.4)), draw.uniform(1.5, 1.65)
            boxes.append(
                (place(along, 0.012, z), (0.012, half[0] + 0.05, half[1] + 0.05), yaw, ("planks", DARK, DARK, 3.0))
            )
            boxes.append(
                (
                    place(along, 0.028, z),
                    (0.006, *half),
                    yaw,
                    _bright(draw, ("marble", "dots", "checker", "plaster"), 2),
                )
            )
    return boxes


def _lamps(draw: random.Random, height: float) -> tuple[Tensor, Tensor]:
    """A warm lamp near the ceiling's middle and a cooler one to the side: points [2, 4, 3] and colours [2, 3]."""
    points = []
    for reach, z in ((0.9, height - 0.15), (2.0, height - 0.5)):
        x, y, turn = draw.uniform(-reach, reach), draw.uniform(-reach, reach), draw.uniform(0, math.pi)
        ring = [turn + math.pi * k / 2 for k in range(4)]
        points.append([(x + 0.12 * math.cos(angle), y + 0.12 * math.sin(angle), z) for angle in ring])
    return torch.tensor(points), torch.tensor([(1.35, 1.15, 0.9), (0.56, 0.7, 0.95)])


def _bright(draw: random.Random, patterns: tuple[str, ...], scale: float = 1.0) -> Surface:
    first, second = draw.sample(PALETTE, 2)
    return draw.choice(patterns), first, second, scale * draw.uniform(3.5, 6.0)


def _shade(color: Color, factor: float) -> Color:
    return (color[0] * factor, color[1] * factor, color[2] * factor)
