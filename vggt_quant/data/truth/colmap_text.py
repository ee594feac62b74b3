"""COLMAP's text format: cameras.txt, and images.txt with two lines per photo.

    cameras.txt    CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
    images.txt     IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME
                   X Y POINT3D_ID, repeated; the line may be empty

Poses are camera from world. Coordinates start at the outer corner of the first pixel. What lies in points3D.txt and in
the second lines is not used. Source: COLMAP's documentation of its output format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from vggt_quant.data.geometry import quaternion_to_matrix
from vggt_quant.data.truth.camera_models import check_params
from vggt_quant.data.truth.text import parse_count, parse_numbers, read_lines

POSE_WORDS = 10
NORM_TOLERANCE = 1e-3
"""Of a quaternion; the files round to six digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A line of cameras.txt; `where` it stands."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A photo's camera and its pose [3, 4] float64, camera from world; `where` it stands in images.txt."""

    camera: Camera
    extrinsic: Tensor
    where: str


def read_calibration(folder: Path) -> dict[str, View]:
    """The calibrated photos of a folder with cameras.txt and images.txt, by file name without folders.

    Raises:
        ValueError: a file is missing, or a line cannot be what it should be; the message names file and line.
    """
    cameras = _read_cameras(folder / "cameras.txt")
    views: dict[str, View] = {}
    for where, words in _pose_lines(folder / "images.txt"):
        name = PurePosixPath(words[-1]).name
        if name in views:
            raise ValueError(f"{where}: {name} has another pose in {views[name].where}; keep one of the two.")
        views[name] = _parse_view(words, cameras, where)
    return views


def _read_cameras(path: Path) -> dict[str, Camera]:
    cameras: dict[str, Camera] = {}
    for where, line in read_lines(path):
        words = line.split()
        if not words:
            continue
        if len(words) < 5:
            raise ValueError(f"{where}: a camera has an id, model, width, height and parameters, not {line!r}.")
        if words[0] in cameras:
            raise ValueError(f"{where}: camera {words[0]} is also in {cameras[words[0]].where}; keep one of the two.")
        cameras[words[0]] = _parse_camera(words, where)
    return cameras


def _parse_camera(words: list[str], where: str) -> Camera:
    params = tuple(parse_numbers(words[4:], where))
    try:
        check_params(words[1], params)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    width, height = (parse_count(word, where) for word in words[2:4])
    return Camera(model=words[1], width=width, height=height, params=params, where=where)


def _pose_lines(path: Path) -> list[tuple[str, list[str]]]:
    """Every first line, as words; the name, which may hold spaces, is one word."""
    poses: list[tuple[str, list[str]]] = []
    points_follow = False
    for where, line in read_lines(path):
        if points_follow:
            _check_points_line(line, where)
            points_follow = False
        elif line:
            words = line.split(maxsplit=POSE_WORDS - 1)
            if len(words) < POSE_WORDS:
                raise ValueError(f"{where}: a pose has {POSE_WORDS} values and a name at the end, not {line[:80]!r}.")
            poses.append((where, words))
            points_follow = True
    return poses


def _check_points_line(line: str, where: str) -> None:
    """A pose that stands where points should be would be lost silently."""
    count = len(line.split())
    if count % 3:
        raise ValueError(
            f"{where}: {count} values are not points of x, y and id; images.txt has two lines per photo, "
            "the second of which may be empty."
        )


def _parse_view(words: list[str], cameras: dict[str, Camera], where: str) -> View:
    w, x, y, z, *translation = parse_numbers(words[1:8], where)
    quaternion = torch.tensor([x, y, z, w], dtype=torch.float64)
    if abs(float(quaternion.norm()) - 1) > NORM_TOLERANCE:
        raise ValueError(f"{where}: the quaternion {' '.join(words[1:5])} is not a rotation, as its norm is not 1.")
    if words[8] not in cameras:
        raise ValueError(f"{where}: camera {words[8]} is not in cameras.txt; unpack the data set again.")
    extrinsic = torch.cat(
        (quaternion_to_matrix(quaternion), torch.tensor(translation, dtype=torch.float64)[:, None]), dim=1
    )
    return View(camera=cameras[words[8]], extrinsic=extrinsic, where=where)
