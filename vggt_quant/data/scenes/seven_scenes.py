"""A sequence of 7-Scenes: frames of a depth camera with poses.

    frame-000000.color.png    640 x 480; also .jpg
    frame-000000.depth.png    16-bit, millimetres; 0 and 65535 are unknown
    frame-000000.pose.txt     4 x 4, camera to world; rounding leaves a determinant of 0.9998
    camera-intrinsics.txt     3 x 3 for the sequence; the data set has none and documents 585, 585, 320, 240

The principal point is assumed to count from the middle of the first pixel, as in Kinect's unprojection. Colours and
depths of the data set are misaligned by some pixels; this is not corrected.

Source: Shotton et al., CVPR 2013; the data set's page at Microsoft Research.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant.data.geometry import invert_rigid
from vggt_quant.data.scenes import Layout
from vggt_quant.data.truth.frames import Frame, Truth, stack_frames
from vggt_quant.data.truth.placement import Placement
from vggt_quant.data.truth.sampling import read_channel, sample_nearest
from vggt_quant.data.truth.text import parse_numbers, read_lines

COLOR_FRAMES = "frame-*.color.*"
DEPTH_FRAMES = "frame-*.depth.png"
INTRINSICS = "camera-intrinsics.txt"
DEFAULT_SIZE = (640, 480)
DEFAULT_FOCAL, DEFAULT_CENTER = (585.0, 585.0), (320.0, 240.0)
MILLIMETRES = 1000
UNKNOWN = 65535
SCALE_TOLERANCE = 0.01
"""How far the stretch of a rounded rotation may be from 1."""


def detect(folder: Path) -> bool:
    """Whether a folder holds frames."""
    return any(folder.glob(COLOR_FRAMES))


def read_truth(folder: Path, paths: Sequence[Path], placements: Sequence[Placement]) -> Truth:
    """The ground truth of a sequence.

    Args:
        folder: the sequence's.
        paths: its photos.
        placements: where each lies in the image that the model sees.

    Raises:
        ValueError: a file that does not fit; the message names it and the line.
    """
    frames = {
        path.name: _read_frame(folder, path, placement) for path, placement in zip(paths, placements, strict=True)
    }
    return stack_frames(frames, placements[0].image, unit="metre")


def _read_frame(folder: Path, path: Path, placement: Placement) -> Frame:
    if not path.match(COLOR_FRAMES):
        return Frame()
    stem = path.name.split(".color.")[0]
    pose, depth = folder / f"{stem}.pose.txt", folder / f"{stem}.depth.png"
    return Frame(
        extrinsic=_read_pose(pose) if pose.is_file() else None,
        intrinsic=_read_intrinsic(folder, path, placement),
        depth=_read_depth(depth, placement) if depth.is_file() else None,
    )


def _read_pose(path: Path) -> Tensor:
    """[3, 4], camera from world."""
    matrix = _read_matrix(path, 4)
    left, stretch, right = torch.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    off_axis = (matrix[3] - torch.tensor([0.0, 0, 0, 1])).abs().max()
    if (stretch - 1).abs().max() > SCALE_TOLERANCE or torch.linalg.det(rotation) < 0 or off_axis > SCALE_TOLERANCE:
        raise ValueError(f"{path}, lines 1 to 4: this is not a rotation and a translation; unpack the data set again.")
    return invert_rigid(torch.cat((rotation, matrix[:3, 3:]), dim=1))[:3]


def _read_intrinsic(folder: Path, path: Path, placement: Placement) -> Tensor:
    focal, center = DEFAULT_FOCAL, DEFAULT_CENTER
    if (folder / INTRINSICS).is_file():
        (fx, _, cx), (_, fy, cy), _ = _read_matrix(folder / INTRINSICS, 3).tolist()
        focal, center = (fx, fy), (cx, cy)
    elif placement.photo != DEFAULT_SIZE:
        width, height = placement.photo
        raise ValueError(
            f"{path} has {width} x {height} pixels, and the data set's known camera 640 x 480; "
            f"put the camera of these photos into {folder / INTRINSICS}."
        )
    return placement.place_intrinsic(focal, (center[0] + 0.5, center[1] + 0.5))


def _read_depth(path: Path, placement: Placement) -> Tensor:
    coordinates, valid = placement.photo_coordinates()
    millimetres = sample_nearest(read_channel(path, placement.photo), coordinates, valid)
    return torch.where(millimetres < UNKNOWN, millimetres / MILLIMETRES, torch.nan)


def _read_matrix(path: Path, size: int) -> Tensor:
    """A square matrix, a row in a line."""
    lines = [(where, line.split()) for where, line in read_lines(path) if line]
    rows = [parse_numbers(words, where) for where, words in lines]
    for (where, _), row in zip(lines, rows, strict=True):
        if len(row) != size:
            raise ValueError(f"{where}: a row has {size} numbers, not {len(row)}; unpack the data set again.")
    if len(rows) != size:
        raise ValueError(
            f"{path}, line {len(rows)}: the matrix has {size} rows, not {len(rows)}; unpack the data set again."
        )
    return torch.tensor(rows, dtype=torch.float64)


LAYOUT = Layout(detect=detect, read_truth=read_truth, not_photos=(DEPTH_FRAMES,))
