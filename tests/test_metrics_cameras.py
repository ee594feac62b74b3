"""Cameras against the truth: cases worked out by hand, COLMAP's own rigid transforms, and what must not matter."""

import math

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from vggt_quant.evaluation.metrics.cameras import pose_accuracy

EXACT = 1e-9  # degrees: float64 rounding of matrix products


def extrinsics(rotations: Rotation, centres) -> Tensor:
    """[S, 3, 4] float64 of world-to-camera rotations and camera centres in the world."""
    translations = -rotations.apply(np.asarray(centres, dtype=float))
    return torch.from_numpy(np.concatenate((rotations.as_matrix(), translations[..., None]), axis=-1))


def upright(*centres) -> Tensor:
    return extrinsics(Rotation.identity(len(centres)), centres)


def scene(seed: int, noise: float = 0.2, views: int = 6) -> tuple[Tensor, Tensor]:
    """Predicted and true cameras; a noise of 0.2 spreads the errors from 1 to 100 degrees."""
    rng = np.random.default_rng(seed)
    rotations, centres = Rotation.random(views, rng=rng), rng.normal(size=(views, 3))
    sizes = noise * rng.uniform(0.05, 1, size=(views, 1))
    turned = Rotation.from_rotvec(sizes * rng.normal(size=(views, 3))) * rotations
    return extrinsics(turned, centres + sizes * rng.normal(size=(views, 3))), extrinsics(rotations, centres)


def in_another_world(cameras: Tensor, rotation: Rotation, shift, scale: float) -> Tensor:
    """The same cameras when the world is scaled, turned and shifted."""
    turned = cameras[..., :3] @ torch.from_numpy(rotation.as_matrix()).mT
    translation = scale * cameras[..., 3:] - turned @ torch.as_tensor(shift, dtype=torch.float64)[:, None]
    return torch.cat((turned, translation), dim=-1)


def test_true_cameras_have_no_error():
    _, true = scene(0)
    figures = pose_accuracy(true, true)
    assert figures["num_pairs"] == 15
    assert figures["rotation_error_deg_median"] < EXACT and figures["direction_error_deg_median"] < EXACT
    assert all(value == 1 for key, value in figures.items() if key.startswith(("pose_auc", "rra", "rta")))


@pytest.mark.parametrize(
    ("degrees", "auc_30", "auc_15", "auc_5", "auc_3"),
    [
        (0.5, 30 / 30, 15 / 15, 5 / 5, 3 / 3),
        (2.5, 28 / 30, 13 / 15, 3 / 5, 1 / 3),
        (10 - 1e-6, 21 / 30, 6 / 15, 0, 0),
        (10 + 1e-6, 20 / 30, 5 / 15, 0, 0),
        (29.5, 1 / 30, 0, 0, 0),
        (31, 0, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_camera_turned_by_known_degrees_has_the_area_counted_by_hand(axis, degrees, auc_30, auc_15, auc_5, auc_3):
    # An error of 10 degrees is under the edges 11, 12, ..., 30: 20 of 30.
    true = upright((0, 0, 0), (1, 0, 0))
    turned = Rotation.concatenate([Rotation.from_euler(axis, degrees, degrees=True), Rotation.identity()])
    figures = pose_accuracy(extrinsics(turned, [(0, 0, 0), (1, 0, 0)]), true)
    assert figures["num_pairs"] == 1
    found = [figures[f"pose_auc_{limit}"] for limit in (30, 15, 5, 3)]
    assert found == pytest.approx([auc_30, auc_15, auc_5, auc_3], abs=1e-12)
    assert figures["rotation_error_deg_median"] == pytest.approx(degrees, abs=EXACT)
    assert [figures[f"rra_{limit}"] for limit in (5, 15, 30)] == [degrees < 5, degrees < 15, degrees < 30]
    # About the baseline itself a turn leaves its direction as it was.
    assert figures["direction_error_deg_median"] == pytest.approx(0 if axis == "x" else degrees, abs=1e-6)


def test_a_moved_camera_has_an_error_of_direction_alone():
    figures = pose_accuracy(upright((0, 0, 0), (1, 1, 0)), upright((0, 0, 0), (5, 0, 0)))
    assert figures["rotation_error_deg_median"] == 0
    assert figures["direction_error_deg_median"] == pytest.approx(45, abs=EXACT)
    assert [figures[f"rta_{limit}"] for limit in (5, 15, 30)] == [0, 0, 0]
    assert figures["rra_5"] == 1 and figures["pose_auc_30"] == 0


def test_a_baseline_and_its_opposite_are_the_same_unless_the_sign_is_kept():
    predicted, true = upright((0, 0, 0), (-1, 0, 0)), upright((0, 0, 0), (1, 0, 0))
    folded, kept = pose_accuracy(predicted, true), pose_accuracy(predicted, true, fold_sign=False)
    assert folded["direction_error_deg_median"] == pytest.approx(0, abs=EXACT) and folded["pose_auc_3"] == 1
    assert kept["direction_error_deg_median"] == pytest.approx(180, abs=EXACT) and kept["pose_auc_30"] == 0


def colmap_errors(predicted: Tensor, true: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and folded direction errors in degrees, of relative poses composed by COLMAP."""
    predicted, true = ([pycolmap.Rigid3d(camera.numpy()) for camera in cameras] for cameras in (predicted, true))
    rotation, direction = [], []
    for i in range(len(true)):
        for j in range(i + 1, len(true)):
            found, expected = (cameras[i] * cameras[j].inverse() for cameras in (predicted, true))
            rotation.append(np.degrees(found.rotation.angle_to(expected.rotation)))
            cosine = abs(found.translation @ expected.translation)
            cosine /= np.linalg.norm(found.translation) * np.linalg.norm(expected.translation)
            direction.append(np.degrees(np.arccos(min(cosine, 1.0))))
    return np.array(rotation), np.array(direction)


@pytest.mark.parametrize("seed", range(5))
def test_all_figures_agree_with_colmap_and_a_histogram(seed):
    predicted, true = scene(seed)
    rotation, direction = colmap_errors(predicted, true)
    expected = {"num_pairs": 15}
    for limit in (30, 15, 5, 3):
        histogram, _ = np.histogram(np.maximum(rotation, direction), bins=np.arange(limit + 1))
        expected[f"pose_auc_{limit}"] = np.mean(np.cumsum(histogram / 15))
    for limit in (5, 15, 30):
        expected |= {f"rra_{limit}": np.mean(rotation < limit), f"rta_{limit}": np.mean(direction < limit)}
    expected["rotation_error_deg_median"] = np.median(rotation)
    expected["direction_error_deg_median"] = np.median(direction)
    figures = pose_accuracy(predicted, true)
    assert figures == pytest.approx(expected, abs=1e-6)  # an arccos loses half of the digits
    assert 0 < figures["pose_auc_30"] < 1
    assert {type(value) for key, value in figures.items() if key != "num_pairs"} == {float}


worlds = st.tuples(
    st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.lists(st.floats(-10, 10), min_size=3, max_size=3)
)


@settings(deadline=None)  # the machine may be busy
@given(worlds, worlds)
def test_neither_the_world_frame_nor_the_unit_matters(predicted_world, true_world):
    moved = []
    for cameras, (seed, scale, shift) in zip(scene(7), (predicted_world, true_world), strict=True):
        moved.append(in_another_world(cameras, Rotation.random(rng=np.random.default_rng(seed)), shift, scale))
    assert pose_accuracy(*moved) == pytest.approx(pose_accuracy(*scene(7)), abs=1e-6)


@pytest.mark.parametrize("views", [0, 1])
def test_a_single_view_has_no_pair_and_no_figure(views):
    _, true = scene(0)
    figures = pose_accuracy(true[:views], true[:views])
    assert figures.pop("num_pairs") == 0
    assert len(figures) == 12 and set(figures.values()) == {None}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("entry", [(0, 0), (2, 3)], ids=["rotation", "translation"])
def test_pairs_of_a_pose_that_is_not_finite_are_missed_and_not_dropped(bad, entry):
    _, true = scene(0, views=3)
    predicted = true.clone()
    predicted[2][entry] = bad
    figures = pose_accuracy(predicted, true)
    assert figures["num_pairs"] == 3
    assert all(figures[key] == pytest.approx(1 / 3) for key in ("pose_auc_30", "pose_auc_3", "rra_30", "rta_30"))
    assert figures["rotation_error_deg_median"] == figures["direction_error_deg_median"] == 180


def test_a_pair_taken_from_one_place_counts_by_its_rotation_alone():
    true = upright((0, 0, 0), (0, 0, 0), (1, 0, 0))
    predicted = upright((0, 0, 0), (0, 1e-3, 0), (1, 0, 0))
    figures = pose_accuracy(predicted, true)
    assert figures["pose_auc_3"] == 1, "the direction between the first two would be 90 degrees off"
    assert figures["num_pairs"] == 3 and figures["rta_5"] == 1
    turned = Rotation.from_rotvec([(0, 0, 0), (0, 40, 0), (0, 0, 0)], degrees=True)
    assert pose_accuracy(extrinsics(turned, [(0, 0, 0), (0, 0, 0), (1, 0, 0)]), true)["rra_30"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("part", "rta"), [(0.5e-4, 1.0), (2e-4, 2 / 3)])
def test_a_baseline_is_no_baseline_below_a_ten_thousandth_of_the_largest(part, rta):
    true, predicted = upright((0, 0, 0), (part, 0, 0), (1, 0, 0)), upright((0, 0, 0), (0, 1e-3, 0), (1, 0, 0))
    assert pose_accuracy(predicted, true)["rta_30"] == pytest.approx(rta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_camera_that_only_turns_has_no_directions_wherever_the_world_begins(dtype):
    """Rounded poses put it in places that differ in the last digits; these are no baselines."""
    rotations = Rotation.random(5, rng=np.random.default_rng(0))
    true = extrinsics(rotations, [(30.1, -7.7, 12.3)] * 5).to(dtype)
    figures = pose_accuracy(extrinsics(rotations, np.eye(5, 3)), true)
    assert figures["rra_5"] == figures["pose_auc_3"] == 1
    assert figures["rta_30"] is figures["direction_error_deg_median"] is None


def test_cameras_predicted_at_one_place_have_no_direction_and_miss():
    _, true = scene(0)
    predicted = torch.cat((true[..., :3], torch.zeros(6, 3, 1)), dim=-1)
    figures = pose_accuracy(predicted, true)
    assert figures["rra_5"] == 1 and figures["rta_30"] == figures["pose_auc_30"] == 0
    assert figures["direction_error_deg_median"] == 180


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_dtype_is_taken(dtype):
    predicted, true = scene(3)
    figures = pose_accuracy(predicted.to(dtype).requires_grad_(), true.float())
    # Rounding turns by a degree at most, which may carry a pair over a threshold.
    assert figures["pose_auc_30"] == pytest.approx(pose_accuracy(predicted, true)["pose_auc_30"], abs=0.05)


def test_what_is_no_truth_is_refused_with_the_reason():
    _, true = scene(0)
    with pytest.raises(ValueError, match=r"shapes \[5, 3, 4\] and \[6, 3, 4\]"):
        pose_accuracy(true[:5], true)
    with pytest.raises(ValueError, match=r"shapes \[6, 9\]"):
        pose_accuracy(torch.ones(6, 9), torch.ones(6, 9))
    broken = true.clone()
    broken[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="1 of 6 true poses are not finite; leave those views out"):
        pose_accuracy(true, broken)
