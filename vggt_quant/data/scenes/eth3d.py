"""ETH3D's high-resolution multi-view scenes, as their archives unpack, and scenes written in the same layout.

    dslr_calibration_undistorted/    cameras.txt, images.txt: pinholes and poses of the undistorted photos
    dslr_calibration_jpg/            the same of the photos as taken, with THIN_PRISM_FISHEYE cameras
    ground_truth_depth/dslr_images/NAME                 raw float32 depth in metres of the photo as taken
    ground_truth_depth/dslr_images_undistorted/NAME     the same of the undistorted photo; ETH3D has none, but where it
                                                        is, it is exact and comes first
    masks_for_images/dslr_images/STEM.png               8-bit marks of the photo as taken

ETH3D's depth belongs to the photo as taken, the model sees the undistorted one. So a pixel of the image becomes a ray
through its pinhole, the ray is turned into the camera as taken (the two poses must agree) and bent by its lens, and the
nearest depth there is measured along the undistorted camera's axis. Unknown depth is infinite.

A mask holds 1 for what a laser and a camera see differently (reflections, glass), and 2 for what moved or is missing
from the scans, where the depth maps hold no values. Both count as unknown.

Sources: eth3d.net/documentation; the README of ETH3D's dataset pipeline (Schoeps et al., CVPR 2017).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant.data.geometry import invert_rigid, rotation_angle
from vggt_quant.data.scenes import Layout
from vggt_quant.data.truth.camera_models import pinhole_part, project
from vggt_quant.data.truth.colmap_text import Camera, View, read_calibration
from vggt_quant.data.truth.frames import Frame, Truth, stack_frames
from vggt_quant.data.truth.placement import Placement
from vggt_quant.data.truth.sampling import read_channel, read_raw_depth, sample_nearest

logger = logging.getLogger(__name__)

PHOTO_FOLDERS = ("dslr_images_undistorted", "images/dslr_images_undistorted")
"""As the archive of the undistorted photos unpacks by itself, and together with the others."""
UNDISTORTED, AS_TAKEN = "dslr_images_undistorted", "dslr_images"
CALIBRATIONS = {UNDISTORTED: "dslr_calibration_undistorted", AS_TAKEN: "dslr_calibration_jpg"}
DEPTHS, MASKS = "ground_truth_depth", "masks_for_images"
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
POSE_TOLERANCE = 5e-3
"""Metres and radians between the two poses of a photo, which differ by the files' rounding to six digits."""


def detect(folder: Path) -> bool:
    """Whether a folder holds undistorted photos where ETH3D has them."""
    return any((folder / name).is_dir() for name in PHOTO_FOLDERS)


def read_truth(folder: Path, paths: Sequence[Path], placements: Sequence[Placement]) -> Truth | None:
    """The ground truth of undistorted photos, or None without their calibration.

    Args:
        folder: the scene's.
        paths: the photos.
        placements: where each lies in the image that the model sees.

    Raises:
        ValueError: a line, file or photo that does not fit; the message names it.
    """
    calibrations = {
        images: read_calibration(folder / name) for images, name in CALIBRATIONS.items() if (folder / name).is_dir()
    }
    if UNDISTORTED not in calibrations:
        logger.warning("%s is missing, so there is no ground truth.", folder / CALIBRATIONS[UNDISTORTED])
        return None
    if AS_TAKEN not in calibrations and (folder / DEPTHS / AS_TAKEN).is_dir():
        logger.warning("%s is missing, so its depth maps cannot be used.", folder / CALIBRATIONS[AS_TAKEN])
    frames = {}
    for path, placement in zip(paths, placements, strict=True):
        views = {images: calibration.get(path.name) for images, calibration in calibrations.items()}
        frames[path.name] = _read_frame(folder, path, placement, views[UNDISTORTED], views.get(AS_TAKEN))
    return stack_frames(frames, placements[0].image, unit="metre")


def _read_frame(folder: Path, path: Path, placement: Placement, view: View | None, taken: View | None) -> Frame:
    """The truth of one photo from its undistorted `view` and the view as `taken`."""
    if view is None:
        return Frame()
    camera = view.camera
    if camera.model not in PINHOLES:
        raise ValueError(
            f"{camera.where}: {camera.model} is not a pinhole; undistort the photos ({' or '.join(PINHOLES)})."
        )
    if (camera.width, camera.height) != placement.photo:
        width, height = placement.photo
        raise ValueError(
            f"{camera.where}: the camera has {camera.width} x {camera.height} pixels, and its photo {path} {width} x "
            f"{height}; take the photos that belong to the calibration."
        )
    return Frame(
        extrinsic=view.extrinsic,
        intrinsic=placement.place_intrinsic(*pinhole_part(camera.model, camera.params)),
        depth=_read_depth(folder, path, placement, view, taken),
    )


def _read_depth(folder: Path, path: Path, placement: Placement, view: View, taken: View | None) -> Tensor | None:
    """[H, W], not positive or not finite where unknown; None without a depth map."""
    coordinates, valid = placement.photo_coordinates()
    if (folder / DEPTHS / UNDISTORTED / path.name).is_file():
        return _sample(folder, UNDISTORTED, path, view.camera, coordinates, valid)
    if taken is None or not (folder / DEPTHS / AS_TAKEN / path.name).is_file():
        return None
    _check_same_pose(view, taken)
    turned = _rays(view.camera, coordinates) @ (taken.extrinsic[:, :3] @ view.extrinsic[:, :3].T).T
    bent = project(turned, taken.camera.model, taken.camera.params)
    # A ray of depth 1 along the axis of the one camera has depth z along that of the other.
    return _sample(folder, AS_TAKEN, path, taken.camera, bent, valid) / turned[..., 2]


def _rays(camera: Camera, coordinates: Tensor) -> Tensor:
    """The points [..., 3] at depth 1 that a pinhole sees at coordinates [..., 2]."""
    focal, center = (torch.tensor(pair, dtype=torch.float64) for pair in pinhole_part(camera.model, camera.params))
    return torch.nn.functional.pad((coordinates - center) / focal, (0, 1), value=1.0)


def _sample(folder: Path, images: str, path: Path, camera: Camera, coordinates: Tensor, valid: Tensor) -> Tensor:
    """The unmasked depth of the photo `path` among `images` at its coordinates; NaN elsewhere."""
    size = camera.width, camera.height
    depth = sample_nearest(read_raw_depth(folder / DEPTHS / images / path.name, size), coordinates, valid)
    mask = folder / MASKS / images / f"{path.stem}.png"
    if not mask.is_file():
        return depth
    marks = sample_nearest(read_channel(mask, size), coordinates, valid)
    return torch.where(marks == 0, depth, torch.nan)


def _check_same_pose(view: View, taken: View) -> None:
    centers = [invert_rigid(each.extrinsic)[:3, 3] for each in (view, taken)]
    distance = float((centers[0] - centers[1]).norm())
    angle = float(rotation_angle(view.extrinsic[:, :3], taken.extrinsic[:, :3]))
    if max(distance, angle) > POSE_TOLERANCE:
        raise ValueError(
            f"{view.where} and {taken.where}: two poses of one photo are {distance:.3g} m and {angle:.3g} rad apart; "
            "take both calibrations from the same release of the data set."
        )


LAYOUT = Layout(detect=detect, read_truth=read_truth, photo_folders=PHOTO_FOLDERS)
