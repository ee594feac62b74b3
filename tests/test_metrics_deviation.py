"""Deviation from fp32: hand-worked cases, agreement with scipy and scikit-image, and spoiled comparisons."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cosine as scipy_cosine_distance
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vggt_quant.evaluation.metrics.camera_deviation import camera_errors
from vggt_quant.evaluation.metrics.depth_deviation import depth_errors
from vggt_quant.evaluation.tensor_errors import output_errors, tensor_error
from vggt_quant.results.scene_schema import TensorError

EXACT = 1e-12  # a handful of float64 operations on small numbers
FLOAT32 = 1e-6  # the inputs themselves are rounded to float32
finite_tensors = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))


def poses(translation, quaternion, fov=(1.0, 1.2)) -> torch.Tensor:
    """One frame, [1, 1, 9], in float64 where the test needs the digits."""
    return torch.tensor([*translation, *quaternion, *fov], dtype=torch.float64).reshape(1, 1, 9)


def noisy_map(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    reference = 1 + torch.rand(shape, generator=generator)
    return reference, reference + 0.05 * torch.randn(shape, generator=generator)


def test_errors_of_a_hand_worked_case():
    row = tensor_error(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 6.0]), is_map=False)
    assert row.mae == pytest.approx(0.5, abs=EXACT)
    assert row.mse == pytest.approx(1.0, abs=EXACT)
    assert row.max_abs == pytest.approx(2.0, abs=EXACT)
    assert row.psnr_peak == pytest.approx(3.0, abs=EXACT)
    assert row.psnr_db == pytest.approx(10 * math.log10(9.0), abs=1e-9)
    assert row.sqnr_db == pytest.approx(10 * math.log10(30 / 4), abs=1e-9)
    assert row.cosine == pytest.approx(38 / math.sqrt(30 * 50), abs=EXACT)
    assert row.identical is False and row.ssim is None


def test_a_row_of_a_dense_map_has_every_figure():
    row = tensor_error(*noisy_map((2, 8, 8)), is_map=True)
    figures = {name: getattr(row, name) for name in TensorError.__struct_fields__ if name != "error"}
    assert None not in figures.values() and row.error is None
    assert row.shape == [2, 8, 8] and row.dtype == "float32"


def test_the_candidate_gives_shape_and_dtype():
    row = tensor_error(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bfloat16), is_map=False)
    assert row.dtype == "bfloat16" and row.shape == [2, 3] and row.identical


def test_identical_outputs_have_null_ratios():
    reference, _ = noisy_map((1, 16, 16))
    row = tensor_error(reference, reference.clone(), is_map=True)
    assert row.identical is True
    assert row.sqnr_db is None and row.psnr_db is None
    assert row.ssim == pytest.approx(1.0, abs=EXACT) and row.mae == 0


def test_psnr_agrees_with_scikit_image():
    reference, candidate = noisy_map((3, 20, 24))
    row = tensor_error(reference, candidate, is_map=False)
    a, b = reference.double().numpy(), candidate.double().numpy()
    assert row.psnr_db == pytest.approx(peak_signal_noise_ratio(a, b, data_range=a.max() - a.min()), abs=1e-9)


def test_cosine_agrees_with_scipy():
    reference, candidate = noisy_map((3, 20, 24))
    expected = 1 - scipy_cosine_distance(reference.double().flatten(), candidate.double().flatten())
    assert tensor_error(reference, candidate, is_map=False).cosine == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("leading", [(1, 2), (2,), (2, 3)])
def test_ssim_is_the_mean_over_frames_of_scikit_image(channels, leading):
    shape = (*leading, 14, 21) if channels is None else (*leading, 14, 21, channels)
    reference, candidate = noisy_map(shape)
    value_range = float(reference.double().max() - reference.double().min())
    frame_shape = (-1, 14, 21) if channels is None else (-1, 14, 21, channels)
    expected = [
        structural_similarity(a, b, data_range=value_range, channel_axis=None if channels is None else -1)
        for a, b in zip(
            reference.double().reshape(frame_shape).numpy(),
            candidate.double().reshape(frame_shape).numpy(),
            strict=True,
        )
    ]
    row = tensor_error(reference, candidate, is_map=True)
    assert row.ssim == pytest.approx(float(np.mean(expected)), abs=1e-9)  # scaled inside, so other roundings
    assert 0 < row.ssim < 1


@pytest.mark.parametrize("shape", [(1, 6, 30, 1), (1, 30, 6), (6, 6), (30,), (2, 1, 3)])
def test_maps_smaller_than_the_window_have_no_ssim(shape):
    row = tensor_error(*noisy_map(shape), is_map=True)
    assert row.ssim is None and row.mae > 0 and row.error is None


def test_a_constant_reference_has_neither_psnr_nor_ssim():
    row = tensor_error(torch.full((1, 8, 8), 2.0), torch.full((1, 8, 8), 3.0), is_map=True)
    assert row.psnr_peak == 0 and row.psnr_db is None and row.ssim is None
    assert row.sqnr_db == pytest.approx(10 * math.log10(4), abs=1e-9)


def test_a_zero_reference_has_neither_sqnr_nor_cosine():
    row = tensor_error(torch.zeros(4), torch.ones(4), is_map=False)
    assert row.sqnr_db is None and row.cosine is None and row.mse == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_counted_in_a_sentence(bad):
    row = tensor_error(torch.ones(2, 8, 8), torch.ones(2, 8, 8).index_fill(1, torch.tensor([0]), bad), is_map=True)
    assert row.error.startswith("16 of 128 values of it are not finite")
    assert all(getattr(row, key) is None for key in ("mae", "mse", "sqnr_db", "ssim", "cosine"))


def test_a_broken_reference_is_named():
    assert "the reference" in tensor_error(torch.tensor([math.nan]), torch.ones(1), is_map=False).error


def test_a_float64_value_beyond_float32_counts_as_infinite():
    row = tensor_error(torch.ones(1), torch.tensor([1e300], dtype=torch.float64), is_map=False)
    assert "not finite" in row.error


def test_another_shape_is_an_error_in_the_row():
    row = tensor_error(torch.ones(1, 4), torch.ones(4), is_map=False)
    assert "[4]" in row.error and "[1, 4]" in row.error


def test_an_empty_tensor_is_an_error_in_the_row():
    assert "no values" in tensor_error(torch.ones(0), torch.ones(0), is_map=True).error


def test_tensors_that_need_gradients_or_are_integers_are_compared():
    row = tensor_error(torch.ones(3, requires_grad=True), torch.tensor([1, 1, 2]), is_map=False)
    assert row.max_abs == 1 and row.dtype == "int64"


@settings(deadline=None)  # the machine may be busy
@given(finite_tensors, st.integers(0, 2**32 - 1))
def test_error_measures_keep_their_order(values, seed):
    reference = torch.from_numpy(values)
    candidate = reference + torch.randn(reference.shape, generator=torch.Generator().manual_seed(seed))
    row = tensor_error(reference, candidate, is_map=False)
    slack = 1 + 1e-9  # float64 sums of at most 40 terms
    assert 0 <= row.mae <= math.sqrt(row.mse) * slack <= row.max_abs * slack**2
    assert row.cosine is None or -1 <= row.cosine <= 1
    assert row.identical == (row.max_abs == 0) == (row.mse == 0)


@settings(deadline=None)  # the machine may be busy
@given(finite_tensors, st.sampled_from([2.0, 4.0, 1024.0]))
def test_ratios_do_not_depend_on_the_unit(values, scale):
    reference = torch.from_numpy(values)
    candidate = reference + 1
    plain = tensor_error(reference, candidate, is_map=False)
    # Powers of two round nothing; upwards, because downwards they would round what is subnormal.
    scaled = tensor_error(scale * reference, scale * candidate, is_map=False)
    for key in ("psnr_db", "sqnr_db", "cosine"):
        value, other = getattr(plain, key), getattr(scaled, key)
        assert (value is None) == (other is None)
        assert value is None or value == pytest.approx(other, abs=1e-6)


def test_output_errors_compare_tensors_and_note_the_rest():
    depth, worse = noisy_map((1, 2, 8, 9, 1))
    pose = torch.zeros(1, 2, 9)
    reference = {"depth": depth, "pose_enc": pose, "pose_enc_list": [pose, pose], "images": depth, "track": pose}
    candidate = {"depth": worse, "pose_enc": pose, "pose_enc_list": [pose, pose], "images": depth, "extra": None}
    errors, notes = output_errors({**reference, "size": 3}, {**candidate, "size": 3})
    assert list(errors) == ["depth", "pose_enc"]
    assert errors["depth"].ssim is not None and errors["pose_enc"].ssim is None
    assert notes == [
        "extra: missing in the reference",
        "images: the input echoed, not compared",
        "pose_enc_list: a list of 2 items, 2 of them tensors, not compared",
        "size: of type int, no tensor, not compared",
        "track: missing in the variant",
    ]


def test_a_tensor_on_one_side_only_is_noted():
    errors, notes = output_errors({"depth": torch.ones(2)}, {"depth": [torch.ones(2)]})
    assert errors == {} and notes == ["depth: a tensor in the reference, a list in the variant, not compared"]


def test_camera_errors_of_a_quarter_turn():
    turned = (0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4))
    errors = camera_errors(poses((1, 0, 0), (0, 0, 0, 1)), poses((1, 1, 0), turned, fov=(1.0, 1.4)))
    assert errors["rotation_error_deg_mean"] == pytest.approx(90, abs=1e-5)  # float32 inputs: 6e-8 rad x 57
    assert errors["translation_angle_deg_max"] == pytest.approx(45, abs=1e-5)
    assert errors["fov_error_deg_mean"] == pytest.approx(math.degrees(0.1), abs=1e-5)


def test_camera_errors_take_mean_and_maximum_over_frames():
    still, turned = (0, 0, 0, 1), (0, 1, 0, 0)
    reference = torch.cat([poses((1, 0, 0), still)] * 4, dim=1)
    candidate = torch.cat([poses((1, 0, 0), still)] * 3 + [poses((0, 1, 0), turned)], dim=1)
    errors = camera_errors(reference, candidate)
    assert errors["rotation_error_deg_mean"] == pytest.approx(45) and errors["rotation_error_deg_max"] == 180
    assert errors["translation_angle_deg_mean"] == pytest.approx(22.5)
    assert errors["translation_angle_deg_max"] == pytest.approx(90)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.booleans())
def test_rotation_errors_agree_with_scipy_for_any_length_and_sign_of_quaternion(seed, length, is_flipped):
    p, q = Rotation.random(2, rng=np.random.default_rng(seed)).as_quat().astype(np.float32)
    expected = np.degrees((Rotation.from_quat(p).inv() * Rotation.from_quat(q)).magnitude())
    candidate = q * length * (-1 if is_flipped else 1)
    errors = camera_errors(poses((0, 0, 1), p), poses((0, 0, 1), candidate))
    # float32 quaternions are good to about 1e-7 rad; near half turns scipy's own arctan is as sensitive
    assert errors["rotation_error_deg_max"] == pytest.approx(expected, abs=5e-5)


def test_tiny_rotations_are_not_rounded_away():
    half_angle = math.radians(1e-4) / 2
    tilted = (math.sin(half_angle), 0, 0, math.cos(half_angle))
    errors = camera_errors(poses((1, 0, 0), (0, 0, 0, 1)), poses((1, 0, 0), tilted))
    assert errors["rotation_error_deg_max"] == pytest.approx(1e-4, rel=FLOAT32)


def test_frames_without_a_translation_have_no_direction():
    reference = torch.cat([poses((1e-4, 0, 0), (0, 0, 0, 1)), poses((1, 0, 0), (0, 0, 0, 1))], dim=1)
    candidate = torch.cat([poses((0, 1e-4, 0), (0, 0, 0, 1)), poses((1, 0, 0), (0, 0, 0, 1))], dim=1)
    assert camera_errors(reference, candidate)["translation_angle_deg_max"] == 0
    alone = camera_errors(reference[:, :1], candidate[:, :1])
    assert alone["translation_angle_deg_mean"] is None and alone["rotation_error_deg_mean"] == 0


def test_a_variant_that_lost_its_translation_or_rotation_gets_no_angle():
    reference = poses((1, 0, 0), (0, 0, 0, 1))
    assert camera_errors(reference, poses((0, 0, 0), (0, 0, 0, 1)))["translation_angle_deg_mean"] is None
    assert camera_errors(reference, poses((1, 0, 0), (0, 0, 0, 0)))["rotation_error_deg_mean"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_pose_that_is_not_finite_spoils_the_scene(bad):
    reference = torch.cat([poses((1, 0, 0), (0, 0, 0, 1))] * 2, dim=1)
    candidate = reference.clone()
    candidate[0, 1, 3] = bad
    assert set(camera_errors(reference, candidate).values()) == {None}


def test_poses_of_another_shape_have_no_angles():
    assert set(camera_errors(torch.ones(1, 2, 9), torch.ones(1, 3, 9)).values()) == {None}


def test_depth_errors_of_a_hand_worked_case():
    reference = torch.tensor([1.0, 2.0, 4.0, 0.0, -1.0, math.inf, math.nan])
    candidate = torch.tensor([1.1, 2.0, 6.0, 9.0, 9.0, 9.0, 9.0])
    errors = depth_errors(reference, candidate)
    assert errors["depth_abs_rel"] == pytest.approx((0.1 + 0 + 0.5) / 3, rel=FLOAT32)
    assert errors["depth_delta_125"] == pytest.approx(2 / 3, abs=EXACT)


@pytest.mark.parametrize(("candidate", "delta"), [(1.2, 1), (1.25, 0), (0.81, 1), (0.8, 0), (0.0, 0), (-1.0, 0)])
def test_delta_is_strict_in_both_directions_and_counts_depths_behind_the_camera_as_misses(candidate, delta):
    reference = torch.tensor([1.0]) if candidate != 0.8 else torch.tensor([5.0])
    value = torch.tensor([candidate]) if candidate != 0.8 else torch.tensor([4.0])  # 0.8 itself is no float32
    assert depth_errors(reference, value)["depth_delta_125"] == delta


def test_depths_are_not_aligned():
    assert depth_errors(torch.ones(4), 2 * torch.ones(4)) == {"depth_abs_rel": 1.0, "depth_delta_125": 0.0}


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [(torch.zeros(3), torch.ones(3)), (torch.ones(3), torch.tensor([1, math.nan, 1])), (torch.ones(3), torch.ones(4))],
    ids=["no valid pixel", "NaN", "shape"],
)
def test_depths_that_cannot_be_compared_have_no_numbers(reference, candidate):
    assert depth_errors(reference, candidate) == {"depth_abs_rel": None, "depth_delta_125": None}
