"""Depth against the truth: cases worked out by hand, plain Python's arithmetic, and what must not matter."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vggt_quant.evaluation.metrics.depth import depth_accuracy

EXACT = 1e-12  # a handful of float64 operations on small numbers
depths = arrays.arrays(np.float64, (2, 3, 4), elements=st.floats(0.1, 100))


def maps(*values: float) -> torch.Tensor:
    """One view of one row, [1, 1, W]."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)


def test_a_hand_worked_case():
    # Medians 2 and 4: the factor is 1/2, the aligned depths are 1, 2, 5; only the last is off, by a quarter of 4.
    figures = depth_accuracy(maps(2, 4, 10), maps(1, 2, 4))
    assert figures == {
        "depth_abs_rel": pytest.approx(0.25 / 3, abs=EXACT),
        "depth_delta_125": pytest.approx(2 / 3, abs=EXACT),
        "depth_scale": 0.5,
        "depth_valid_share": 1.0,
        "constant_depth_abs_rel": pytest.approx((1 + 0 + 0.5) / 3, abs=EXACT),
    }


def test_the_median_of_an_even_number_is_the_middle_of_two():
    assert depth_accuracy(maps(1, 1, 3, 9), maps(4, 4, 4, 4))["depth_scale"] == 2


def test_depth_error_is_zero_for_a_scaled_copy():
    true = 1 + torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    figures = depth_accuracy(0.125 * true, true)
    assert figures["depth_abs_rel"] == 0 and figures["depth_delta_125"] == 1 and figures["depth_scale"] == 8


def test_all_views_share_one_factor():
    true = torch.ones(3, 2, 2)
    predicted = true * torch.tensor([1.0, 1.0, 2.0])[:, None, None]
    figures = depth_accuracy(predicted, true)
    assert figures["depth_abs_rel"] == pytest.approx(1 / 3) and figures["depth_delta_125"] == pytest.approx(2 / 3)


def test_a_shift_is_an_error():
    assert depth_accuracy(maps(2, 3, 4), maps(1, 2, 3))["depth_abs_rel"] > 0.1


@settings(deadline=None)  # the machine may be busy
@given(depths, depths)
def test_all_figures_agree_with_plain_python(predicted, true):
    true[0, 0, 0] = 0
    pairs = [(d, t) for d, t in zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True) if t > 0]
    middle = statistics.median(t for _, t in pairs)
    scale = middle / statistics.median(d for d, _ in pairs)
    figures = depth_accuracy(torch.from_numpy(predicted), torch.from_numpy(true))
    assert figures["depth_scale"] == pytest.approx(scale)
    assert figures["depth_abs_rel"] == pytest.approx(statistics.fmean(abs(scale * d - t) / t for d, t in pairs))
    assert figures["depth_valid_share"] == pytest.approx(23 / 24)
    assert figures["constant_depth_abs_rel"] == pytest.approx(statistics.fmean(abs(middle - t) / t for _, t in pairs))
    ratios = [max(scale * d / t, t / (scale * d)) for d, t in pairs]
    edge = sum(abs(ratio - 1.25) < EXACT for ratio in ratios)  # either answer is right there
    assert abs(figures["depth_delta_125"] * 23 - sum(ratio < 1.25 for ratio in ratios)) <= edge + EXACT


@settings(deadline=None)  # the machine may be busy
@given(depths, depths, st.integers(-20, 20), st.integers(-20, 20))
def test_neither_unit_matters(predicted, true, predicted_power, true_power):
    predicted, true = torch.from_numpy(predicted), torch.from_numpy(true)
    # Powers of two round nothing.
    scaled = depth_accuracy(predicted * 2.0**predicted_power, true * 2.0**true_power)
    plain = depth_accuracy(predicted, true)
    assert scaled.pop("depth_scale") == plain.pop("depth_scale") * 2.0 ** (true_power - predicted_power)
    assert scaled == plain


def test_a_constant_prediction_is_as_good_as_the_control():
    true = 1 + torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    figures = depth_accuracy(torch.full_like(true, 7), true)
    assert figures["depth_abs_rel"] == pytest.approx(figures["constant_depth_abs_rel"], abs=EXACT)
    assert figures["depth_abs_rel"] > 0.1


@pytest.mark.parametrize("hole", [0, -1, math.nan, math.inf])
def test_pixels_without_a_truth_are_left_out_whatever_is_predicted_there(hole):
    figures = depth_accuracy(maps(1, 2, 3, math.nan), maps(2, 4, 6, hole))
    assert figures["depth_abs_rel"] == 0 and figures["depth_scale"] == 2 and figures["depth_valid_share"] == 0.75


def test_depths_behind_the_camera_are_misses():
    figures = depth_accuracy(maps(1, 1, 1, 0, -1), maps(1, 1, 1, 1, 1))
    assert figures["depth_delta_125"] == 0.6 and figures["depth_abs_rel"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "predicted", [(1, math.nan, 1), (1, 1, -math.inf), (0, 0, 1), (-1, -1, 1)], ids=["NaN", "inf", "zero", "negative"]
)
def test_a_prediction_that_cannot_be_aligned_leaves_the_truths_own_figures(predicted):
    figures = depth_accuracy(maps(*predicted), maps(1, 2, 4))
    assert figures["depth_abs_rel"] is figures["depth_delta_125"] is figures["depth_scale"] is None
    assert figures["depth_valid_share"] == 1 and figures["constant_depth_abs_rel"] == pytest.approx(0.5)


def test_a_scene_without_a_valid_pixel_has_no_figures():
    figures = depth_accuracy(torch.ones(2, 3, 3), torch.zeros(2, 3, 3))
    assert figures.pop("depth_valid_share") == 0
    assert len(figures) == 4 and set(figures.values()) == {None}
    assert set(depth_accuracy(torch.ones(0, 3, 3), torch.ones(0, 3, 3)).values()) == {None}


def test_any_float_dtype_is_taken_and_figures_are_plain():
    figures = depth_accuracy(maps(2, 4, 10).bfloat16().requires_grad_(), maps(1, 2, 4).half())
    assert figures["depth_abs_rel"] == pytest.approx(0.25 / 3, abs=EXACT)
    assert {type(value) for value in figures.values()} == {float}


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shapes \[1, 2, 2, 1\] and \[1, 2, 2\]"):
        depth_accuracy(torch.ones(1, 2, 2, 1), torch.ones(1, 2, 2))
