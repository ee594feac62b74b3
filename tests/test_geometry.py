"""Cameras and rotations; the original's own values are in test_model_reference.py's units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggt_quant.geometry import (
    cameras_to_pose,
    direction_angle,
    invert_rigid,
    matrix_to_quaternion,
    pose_to_cameras,
    quaternion_to_matrix,
    rotation_angle,
    unproject_depth,
)

IMAGE_SIZE = (48, 64)


def random_poses(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    placed = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    fov = 0.5 + torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat((placed, fov), dim=-1)


def turn(axis: tuple[float, float, float], angle: float) -> Tensor:
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    return quaternion_to_matrix(
        torch.cat((unit * math.sin(angle / 2), torch.tensor([math.cos(angle / 2)], dtype=torch.float64)))
    )


def test_a_quaternion_turns_as_its_axis_and_angle_say() -> None:
    quarter = quaternion_to_matrix(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    # A quarter about z takes x to y; one float32 rounding per entry.
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), rtol=0, atol=1e-6)


def test_matrices_of_quaternions_are_rotations() -> None:
    rotation = quaternion_to_matrix(random_poses(50)[:, 3:7])
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    # Float64 rounding.
    torch.testing.assert_close(rotation @ rotation.mT, identity, rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, math.pi - 1e-9, math.pi])
@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (1.0, -1, 0), (1.0, 2, 3)])
def test_a_rotation_survives_its_quaternion_also_at_half_turns(axis: tuple[float, float, float], angle: float) -> None:
    rotation = turn(axis, angle)
    quaternion = matrix_to_quaternion(rotation)
    assert quaternion[3] >= 0
    # Float64 rounding.
    assert abs(float(quaternion.norm()) - 1) < 1e-13
    torch.testing.assert_close(quaternion_to_matrix(quaternion), rotation, rtol=0, atol=1e-12)


def test_a_pose_survives_its_cameras() -> None:
    pose = random_poses(20)
    unit = torch.nn.functional.normalize(pose[:, 3:7], dim=-1)
    unit = torch.where(unit[:, 3:] < 0, -unit, unit)
    expected = torch.cat((pose[:, :3], unit, pose[:, 7:]), dim=-1)
    again = cameras_to_pose(*pose_to_cameras(pose, IMAGE_SIZE), IMAGE_SIZE)
    # Float64 rounding.
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-12)


def test_the_vertical_field_of_view_comes_first() -> None:
    pose = torch.tensor([0, 0, 0, 0, 0, 0, 1, math.pi / 2, 2 * math.atan(0.5)], dtype=torch.float64)
    _, intrinsic = pose_to_cameras(pose, IMAGE_SIZE)
    expected = torch.tensor([[64.0, 0, 32], [0, 24, 24], [0, 0, 1]], dtype=torch.float64)
    # Float64 rounding of a tangent.
    torch.testing.assert_close(intrinsic, expected, rtol=0, atol=1e-12)


def test_a_transform_times_its_inverse_is_the_identity() -> None:
    extrinsic, _ = pose_to_cameras(random_poses(10), IMAGE_SIZE)
    inverse = invert_rigid(extrinsic)
    whole = torch.cat((extrinsic, torch.tensor([[[0.0, 0, 0, 1]]]).double().expand(10, 1, 4)), dim=1)
    identity = torch.eye(4, dtype=torch.float64).expand(10, 4, 4)
    # Float64 rounding.
    torch.testing.assert_close(inverse @ whole, identity, rtol=0, atol=1e-12)
    assert torch.equal(invert_rigid(whole), inverse)


def test_unprojected_points_project_back_to_their_pixels_and_depths() -> None:
    extrinsic, intrinsic = pose_to_cameras(random_poses(3).float(), (6, 8))
    depth = 1 + torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(1))
    points = unproject_depth(depth, extrinsic, intrinsic)
    assert points.dtype == torch.float64
    in_camera = torch.einsum("sij,shwj->shwi", extrinsic[..., :3].double(), points) + extrinsic[:, None, None, :, 3]
    pixels = torch.einsum("sij,shwj->shwi", intrinsic.double(), in_camera)
    u, v = pixels[..., 0] / pixels[..., 2], pixels[..., 1] / pixels[..., 2]
    # The float32 rotation is orthogonal to 1e-7 only, so its transpose is its inverse to that.
    torch.testing.assert_close(u, torch.arange(8.0).double().expand(3, 6, 8), rtol=0, atol=2e-5)
    torch.testing.assert_close(v, torch.arange(6.0).double()[:, None].expand(3, 6, 8), rtol=0, atol=2e-5)
    torch.testing.assert_close(in_camera[..., 2], depth.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, 3.0, math.pi])
def test_the_angle_between_rotations_is_the_turn_from_one_to_the_other(angle: float) -> None:
    first = turn((1.0, 2, -1), 0.7)
    # Tighter than arccos of a trace could be: that is off by 1e-8 at small angles.
    assert abs(float(rotation_angle(first, first @ turn((0.5, 1, 3), angle))) - angle) < 1e-12


def test_the_angle_between_directions_ignores_lengths() -> None:
    first, second = (
        torch.tensor([[2.0, 0, 0], [1, 0, 0], [1, 0, 0]]),
        torch.tensor([[5.0, 0, 0], [0, 3, 0], [-1, 0, 0]]),
    )
    expected = torch.tensor([0, math.pi / 2, math.pi])
    torch.testing.assert_close(direction_angle(first, second), expected, rtol=0, atol=1e-6)  # float32 rounding


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"shapes \[\[2, 4, 5\], \[3, 3, 4\], \[3, 3, 3\]\]"):
        unproject_depth(torch.ones(2, 4, 5), torch.zeros(3, 3, 4), torch.zeros(3, 3, 3))
    with pytest.raises(ValueError, match=r"shape \[3, 3\]"):
        invert_rigid(torch.eye(3))
