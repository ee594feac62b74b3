"""Cameras, rotations and alignment; the original's own values are in test_model_reference.py's units."""

from __future__ import annotations

import math

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from vggt_quant.data.geometry import (
    cameras_to_pose,
    direction_angle,
    invert_rigid,
    matrix_to_quaternion,
    pose_to_cameras,
    quaternion_to_matrix,
    rotation_angle,
    umeyama,
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


def clouds(seed: int, noise: float = 0.0, count: int = 20) -> tuple[Tensor, Tensor, tuple[float, Tensor, Tensor]]:
    """Points, the same moved by a similarity and disturbed, and the similarity."""
    rng = np.random.default_rng(seed)
    scale = float(rng.uniform(0.1, 10))
    rotation = torch.from_numpy(Rotation.random(rng=rng).as_matrix())
    source, disturbance = (torch.from_numpy(rng.normal(size=(count, 3))) for _ in range(2))
    shift = torch.from_numpy(rng.normal(size=3))
    return source, scale * source @ rotation.mT + shift + noise * disturbance, (scale, rotation, shift)


def residual(source: Tensor, target: Tensor, scale: Tensor, rotation: Tensor, shift: Tensor) -> float:
    return float((scale * source @ rotation.mT + shift - target).square().sum())


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_a_similarity_is_found_again(seed: int, count: int) -> None:
    source, target, expected = clouds(seed, count=count)
    for found, wanted in zip(umeyama(source, target), expected, strict=True):
        # Float64 rounding; four random points may be nearly flat, which costs some digits.
        torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("mirror", [1.0, -1.0], ids=["", "mirrored"])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_alignment_agrees_with_colmap_and_scipy(seed: int, noise: float, mirror: float) -> None:
    source, target, _ = clouds(seed, noise)
    target = target * torch.tensor([mirror, 1, 1])
    scale, rotation, shift = umeyama(source, target)
    colmap = pycolmap.estimate_sim3d(source.numpy(), target.numpy())
    centred = [points - points.mean(0) for points in (target, source)]
    scipy, _ = Rotation.align_vectors(*(points.numpy() for points in centred))
    near = pytest.approx  # all in float64: rounding
    assert float(scale) == near(colmap.scale, rel=1e-9)
    assert rotation.numpy() == near(scipy.as_matrix(), abs=1e-7)  # it works through quaternions
    assert rotation.numpy() == near(colmap.rotation.matrix(), abs=1e-9)
    assert shift.numpy() == near(colmap.translation, abs=1e-9)
    assert float(torch.linalg.det(rotation)) == near(1, abs=1e-12)


def test_no_similarity_nearby_fits_better() -> None:
    source, target, _ = clouds(5, noise=0.5)
    scale, rotation, shift = umeyama(source, target)
    best = residual(source, target, scale, rotation, shift)
    for sign in (-1, 1):
        assert residual(source, target, scale + sign * 1e-3, rotation, shift) > best
        for axis in torch.eye(3).tolist():
            assert residual(source, target, scale, turn(tuple(axis), sign * 1e-3) @ rotation, shift) > best
            assert residual(source, target, scale, rotation, shift + sign * 1e-3 * torch.tensor(axis)) > best


def test_three_points_and_a_flat_cloud_are_enough() -> None:
    source = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    target = torch.tensor([[5.0, 0, 0], [5, 2, 0], [5, 0, 2]])  # x to y, y to z, doubled, moved along x
    scale, rotation, shift = umeyama(source, target)
    assert scale.dtype == rotation.dtype == shift.dtype == torch.float64 and scale.shape == ()
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]).double()
    torch.testing.assert_close(rotation, expected, rtol=0, atol=1e-12)  # float64 rounding
    assert float(scale) == pytest.approx(2) and shift.tolist() == pytest.approx([5, 0, 0], abs=1e-12)


def line(count: int, bend: float = 0.0) -> Tensor:
    """Points along a slanted line, every second one beside it by `bend` of the line's half length."""
    unit, aside = torch.tensor([2.0, 1, -2]).double() / 3, torch.tensor([1.0, -2, 0]).double() / math.sqrt(5)
    along = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None] * unit
    return along + bend * (torch.arange(count) % 2)[:, None] * aside


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 10_000.0], ids=["near", "far"])
@pytest.mark.parametrize("degenerate", [line(9), torch.ones(9, 3).double() * 0.1], ids=["line", "place"])
def test_points_on_a_line_or_in_one_place_determine_nothing(
    degenerate: Tensor, offset: float, dtype: torch.dtype
) -> None:
    points, (good, _, _) = (degenerate + offset).to(dtype), clouds(0, count=9)
    with pytest.raises(ValueError, match="The 9 source points lie on a line or in one place"):
        umeyama(points, good)
    with pytest.raises(ValueError, match="The 9 target points lie on a line or in one place"):
        umeyama(good, points)


def test_a_line_is_a_line_below_a_hundred_thousandth_of_its_length() -> None:
    umeyama(line(9, bend=1e-4), line(9, bend=1e-4))
    with pytest.raises(ValueError, match="lie on a line"):
        umeyama(line(9, bend=1e-6), line(9, bend=1e-6))


def test_points_that_do_not_correlate_determine_nothing() -> None:
    square = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    folded = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match="do not correlate in two directions"):
        umeyama(square, folded)


def test_points_that_cannot_be_aligned_are_named() -> None:
    good = clouds(0)[0]
    broken = good.clone()
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="1 of 20 target points are not finite; leave them out"):
        umeyama(good, broken)
    with pytest.raises(ValueError, match="2 pairs of points determine no similarity; give three or more"):
        umeyama(good[:2], good[:2])
    with pytest.raises(ValueError, match=r"shapes \[20, 3\] and \[19, 3\]"):
        umeyama(good, good[:19])
