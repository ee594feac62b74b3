"""Draws rooms as scene folders in ETH3D's layout, so that they are read as ETH3D's own scenes are.

    room_0000/dslr_images_undistorted/view_000.png                      8-bit photos
    room_0000/dslr_calibration_undistorted/{cameras,images,points3D}.txt    COLMAP's text files
    room_0000/ground_truth_depth/dslr_images_undistorted/view_000.png   raw float32 z-depth in metres, exact

ETH3D's own depth maps belong to its distorted photos; these belong to the photos that are there, under the same names.
COLMAP counts pixels from the corner of the first one, so its principal point is half a pixel more than here.

Shapes: V views, H W pixels.

Source: COLMAP's documentation of its text format; eth3d.net/documentation.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vggt_quant.data.geometry import matrix_to_quaternion
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms, render
from vggt_quant.data.synthetic.rooms import Draw, sample

PHOTOS = "dslr_images_undistorted"
CALIBRATION = "dslr_calibration_undistorted"
DEPTHS = "ground_truth_depth"
POINT_STEP = 16
"""Every 16th pixel of every 16th row of each photo becomes a point of points3D.txt."""
SAME_DEPTH = 0.02
"""Two depths of one ray that differ by less than this share are the same surface."""


def draw_scenes(
    folder: str | Path, *, num_scenes: int, num_views: int = 4, size: int = 112, first_seed: int = 0
) -> list[Path]:
    """Draw the rooms of `num_scenes` seeds from `first_seed` on, one folder each.

    Args:
        folder: where `room_<seed>` folders go; a drawn one that is there is replaced.
        num_scenes: rooms.
        num_views: overlapping photos of each.
        size: pixels of a photo's side.
        first_seed: of the first room; the next ones count on.

    Returns:
        The folders. Each is written whole or not at all.

    Raises:
        ValueError: a count or the size is not positive, the seed negative, or a folder of that name holds something
            else.
    """
    if min(num_scenes, num_views, size) < 1 or first_seed < 0:
        raise ValueError(
            f"Cannot draw {num_scenes} scenes of {num_views} photos of {size} pixels from seed {first_seed}; "
            "give positive numbers, and a seed from 0."
        )
    seeds = range(first_seed, first_seed + num_scenes)
    return [_draw_scene(Path(folder) / f"room_{seed:04d}", seed, num_views, size) for seed in seeds]


def _draw_scene(folder: Path, seed: int, num_views: int, size: int) -> Path:
    if folder.exists() and not (folder / CALIBRATION / "points3D.txt").is_file():
        raise ValueError(f"{folder} is no drawn room and would be replaced; move it, or draw into another folder.")
    rooms, cameras = sample(1, num_views, Draw(seed), height=size, width=size)
    views = _photograph(rooms, cameras, size)
    names = [f"view_{index:03d}.png" for index in range(num_views)]
    unfinished = folder.with_name(f"{folder.name}.incomplete")
    shutil.rmtree(unfinished, ignore_errors=True)
    for place in (PHOTOS, CALIBRATION, f"{DEPTHS}/{PHOTOS}"):
        (unfinished / place).mkdir(parents=True)
    for name, rgb, depth in zip(names, views["rgb"], views["depth"], strict=True):
        pixels = rgb.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        Image.fromarray(pixels.numpy()).save(unfinished / PHOTOS / name, format="PNG")
        depth.contiguous().numpy().astype("<f4").tofile(unfinished / DEPTHS / PHOTOS / name)
    for name, lines in _calibration(views, cameras, names).items():
        (unfinished / CALIBRATION / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(unfinished, folder)
    return folder


def _photograph(rooms: Rooms, cameras: Cameras, size: int) -> dict[str, Tensor]:
    """What `render` gives of one room, view by view: many large ones at once leave the caches."""
    views = [
        render(rooms, Cameras(extrinsics=extrinsics, intrinsics=intrinsics), size, size)
        for extrinsics, intrinsics in zip(cameras.extrinsics.split(1, 1), cameras.intrinsics.split(1, 1), strict=True)
    ]
    return {name: torch.cat([view[name][0] for view in views]) for name in views[0]}


def _calibration(views: dict[str, Tensor], cameras: Cameras, names: list[str]) -> dict[str, list[str]]:
    """The lines of cameras.txt, images.txt and points3D.txt."""
    extrinsics, intrinsics = cameras.extrinsics[0].double(), cameras.intrinsics[0].double()
    height, width = views["depth"].shape[-2:]
    points, colors, seen = _sparse_points(views, extrinsics, intrinsics)
    tracks: list[list[str]] = [[] for _ in points]
    image_lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, then X, Y, POINT3D_ID of its points"]
    for index, name in enumerate(names):
        x, y, z, w = matrix_to_quaternion(extrinsics[index, :, :3]).tolist()
        pose = " ".join(f"{value:.12g}" for value in (w, x, y, z, *extrinsics[index, :, 3].tolist()))
        marks: list[str] = []
        for number, (u, v) in seen[index].items():
            tracks[number].append(f"{index + 1} {len(marks)}")
            marks.append(f"{u:.4f} {v:.4f} {number + 1}")
        image_lines += [f"{index + 1} {pose} 1 {PHOTOS}/{name}", " ".join(marks)]
    focal, (cx, cy) = intrinsics[0, 0, 0], (intrinsics[0, :2, 2] + 0.5).tolist()
    return {
        "cameras.txt": [
            "# CAMERA_ID, MODEL, WIDTH, HEIGHT, FX, FY, CX, CY",
            f"1 PINHOLE {width} {height} {focal:.12g} {focal:.12g} {cx} {cy}",
        ],
        "images.txt": image_lines,
        "points3D.txt": [
            "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
            *(
                " ".join([f"{number}", *(f"{x:.6f}" for x in point), *map(str, color), "0", *track])
                for number, (point, color, track) in enumerate(
                    zip(points.tolist(), colors.tolist(), tracks, strict=True), start=1
                )
            ),
        ],
    }


def _sparse_points(
    views: dict[str, Tensor], extrinsics: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor, list[dict[int, tuple[float, float]]]]:
    """Points [n, 3], their 8-bit colours [n, 3], and for each view where, in COLMAP's pixels, it sees which of them."""
    grid = (slice(None), slice(POINT_STEP // 2, None, POINT_STEP), slice(POINT_STEP // 2, None, POINT_STEP))
    points = views["world_points"][grid].reshape(-1, 3).double()
    colors = views["rgb"].mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)[grid].reshape(-1, 3)
    seen = []
    for extrinsic, intrinsic, depth in zip(extrinsics, intrinsics, views["depth"], strict=True):
        in_camera = points @ extrinsic[:, :3].T + extrinsic[:, 3]
        uv = (in_camera @ intrinsic.T)[:, :2] / in_camera[:, 2:]
        pixel = uv.round().long()
        is_inside = (in_camera[:, 2] > 0) & (pixel >= 0).all(1) & (pixel[:, 0] < depth.shape[1]) & (
            pixel[:, 1] < depth.shape[0]
        )  # fmt: skip
        pixel = pixel.clamp(min=0).minimum(torch.tensor([depth.shape[1] - 1, depth.shape[0] - 1]))
        is_same = (depth[pixel[:, 1], pixel[:, 0]] / in_camera[:, 2] - 1).abs() < SAME_DEPTH
        numbers = (is_inside & is_same).nonzero()[:, 0].tolist()
        seen.append({number: tuple((uv[number] + 0.5).tolist()) for number in numbers})
    return points, colors, seen
