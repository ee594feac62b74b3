"""A scene in ETH3D's layout whose geometry has a closed form: a slanted wall and a ball in front of it.

The photos as taken go through a THIN_PRISM_FISHEYE camera with the coefficients of ETH3D's courtyard, a tenth as large;
pycolmap says which ray each of their pixels sees, so that nothing here shares code with what it tests.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggt_quant.data.geometry import matrix_to_quaternion

WALL_NORMAL = torch.tensor([0.5, 0.25, 0.83], dtype=torch.float64)
WALL_OFFSET = 3.0
BALL_CENTER, BALL_RADIUS = torch.tensor([-0.5, 0.2, 2.4], dtype=torch.float64), 0.5

TAKEN_SIZE = (600, 400)
TAKEN_PARAMS = [338.4, 338.3, 301.7, 199.8, 0.21047, 0.21102, -5.36231e-06, 0.00051541]
TAKEN_PARAMS += [-0.158023, 0.406856, -8.46499e-05, 0.000861313]
PINHOLE_SIZE = (620, 412)
PINHOLE = (338.2, 337.9, 311.0, 205.4)
"""fx, fy, cx, cy as in cameras.txt: from the outer corner of the first pixel."""


def cameras(count: int) -> list[Tensor]:
    """Extrinsics [3, 4] of cameras side by side that look at the ball, slightly rolled."""
    poses = []
    for index in range(count):
        yaw, roll = 0.12 * (index - 1), 0.03 * index
        turn_y = torch.tensor(
            [[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]], dtype=torch.float64
        )
        turn_z = torch.tensor(
            [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]], dtype=torch.float64
        )
        rotation = turn_z @ turn_y
        center = torch.tensor([0.25 * (index - 1), 0.05 * index, 0.0], dtype=torch.float64)
        poses.append(torch.cat((rotation, -(rotation @ center)[:, None]), dim=1))
    return poses


def grid(size: tuple[int, int]) -> Tensor:
    """Centres of the pixels [H, W, 2], from the outer corner of the first one."""
    x, y = (torch.arange(length, dtype=torch.float64) + 0.5 for length in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def pinhole_rays(pixels: Tensor, pinhole: tuple[float, ...] = PINHOLE) -> Tensor:
    """Points [..., 3] at depth 1."""
    focal, center = torch.tensor(pinhole, dtype=torch.float64).split(2)
    return torch.nn.functional.pad((pixels - center) / focal, (0, 1), value=1.0)


@functools.cache
def taken_camera():
    """The camera of the photos as taken."""
    import pycolmap  # scenes of undistorted photos alone do without it

    width, height = TAKEN_SIZE
    return pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=width, height=height, params=TAKEN_PARAMS)


@functools.cache
def taken_rays() -> Tensor:
    points = taken_camera().cam_from_img(grid(TAKEN_SIZE).reshape(-1, 2).numpy())
    points = torch.from_numpy(np.ascontiguousarray(points)).reshape(TAKEN_SIZE[1], TAKEN_SIZE[0], 2)
    return torch.nn.functional.pad(points, (0, 1), value=1.0)


def cast(rays: Tensor, extrinsic: Tensor) -> Tensor:
    """Depth [...] along the camera's axis of what the rays [..., 3], of depth 1, meet first."""
    rotation, center = extrinsic[:, :3], -extrinsic[:, :3].T @ extrinsic[:, 3]
    direction = rays @ rotation
    wall = (WALL_OFFSET - WALL_NORMAL @ center) / (direction @ WALL_NORMAL)
    away = center - BALL_CENTER
    a, b, c = direction.square().sum(-1), direction @ away, away.square().sum() - BALL_RADIUS**2
    root = b * b - a * c
    ball = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, math.inf)
    return torch.minimum(wall, ball)


def color(points: Tensor) -> Tensor:
    """A smooth colour [..., 3] in 0 to 1 for each point of the world."""
    return 0.5 + 0.4 * torch.sin(2.0 * points + torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))


def write_scene(
    folder: Path,
    *,
    count: int = 3,
    size: tuple[int, int] = PINHOLE_SIZE,
    pinhole: tuple[float, ...] = PINHOLE,
    images: str = "images/dslr_images_undistorted",
    aligned: bool = False,
    turned: float = 0.0,
) -> list[Tensor]:
    """Write a scene and return its extrinsics.

    Args:
        folder: where to.
        count: photos.
        size: (width, height) of the undistorted photos.
        pinhole: their camera.
        images: where the undistorted photos go.
        aligned: write depth of the undistorted photos instead of those as taken.
        turned: radians by which the camera as taken is turned about its vertical axis.
    """
    poses = cameras(count)
    turn = torch.tensor(
        [[math.cos(turned), 0, math.sin(turned)], [0, 1, 0], [-math.sin(turned), 0, math.cos(turned)]],
        dtype=torch.float64,
    )
    _write_calibration(
        folder / "dslr_calibration_undistorted", "dslr_images_undistorted", poses, "PINHOLE", size, pinhole
    )
    if not aligned:
        taken = [turn @ pose for pose in poses]
        _write_calibration(
            folder / "dslr_calibration_jpg", "dslr_images", taken, "THIN_PRISM_FISHEYE", TAKEN_SIZE, TAKEN_PARAMS
        )
    for index, pose in enumerate(poses):
        rays = pinhole_rays(grid(size), pinhole)
        depth = cast(rays, pose)
        points = (rays * depth[..., None] - pose[:, 3]) @ pose[:, :3]
        pixels = (color(points) * 255).round().to(torch.uint8).numpy()
        path = folder / images / f"DSC_{index:04d}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        if aligned:
            write_depth(folder, "dslr_images_undistorted", index, depth)
        else:
            write_depth(folder, "dslr_images", index, cast(taken_rays(), taken[index]))
    return poses


def write_depth(folder: Path, images: str, index: int, depth: Tensor) -> Path:
    path = folder / "ground_truth_depth" / images / f"DSC_{index:04d}.PNG"
    path.parent.mkdir(parents=True, exist_ok=True)
    depth.numpy().astype("<f4").tofile(path)
    return path


def _write_calibration(folder: Path, images: str, poses: list[Tensor], model: str, size: tuple, params: tuple) -> None:
    folder.mkdir(parents=True)
    camera = " ".join(map(repr, [*size, *map(float, params)]))
    (folder / "cameras.txt").write_text(f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n0 {model} {camera}\n")
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"]
    for index, pose in enumerate(poses):
        x, y, z, w = matrix_to_quaternion(pose[:, :3]).tolist()
        values = " ".join(map(repr, [w, x, y, z, *pose[:, 3].tolist()]))
        points = "10.5 20.25 -1 30.0 40.5 7" if index % 2 else ""
        lines += [f"{index + 5} {values} 0 {images}/DSC_{index:04d}.PNG", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# empty\n")
