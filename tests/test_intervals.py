"""Intervals over scenes: cases worked out by hand, scipy's bootstrap, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from vggt_quant.results.intervals import (
    FEWEST_SCENES,
    bootstrap_interval,
    is_within_noise,
    paired_difference,
    percentile_outside,
)

figures = st.lists(st.floats(-1e6, 1e6), min_size=FEWEST_SCENES, max_size=12)


def test_the_expansion_is_worked_out_by_hand():
    # Six scenes, 95 %: sqrt(6 / 5) * t(5 degrees of freedom, 0.975) = 1.09545 * 2.57058 = 2.81594; normal: 0.24318 %.
    assert percentile_outside(6, 0.95) == pytest.approx(0.0024318, abs=1e-6)
    # Many scenes need no expansion.
    assert percentile_outside(10**6, 0.95) == pytest.approx(0.025, abs=1e-5)


def test_six_scenes_are_worked_out_by_hand():
    # Means of six draws from five zeros and a one are k / 6, k binomial(6, 1/6): no k in 33.5 %, at most one in 73.7 %.
    values = [0, 0, 0, 0, 0, 6]
    assert bootstrap_interval(values, level=0.1) == (1, 1)
    low, high = bootstrap_interval(values)
    # All but 0.24 % of the cases on either side: at most four in 99.94 %, at most three in 99.1 %.
    assert (low, high) == (0, 4)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("count", [7, 40])
def test_intervals_agree_with_scipy(count, level):
    values = np.random.default_rng(count).exponential(size=count).tolist()
    drawn = {"n_resamples": 40_000, "rng": np.random.default_rng(99)}
    expanded = 1 - 2 * percentile_outside(count, level)
    expected = bootstrap((values,), np.mean, confidence_level=expanded, method="percentile", **drawn)
    found = bootstrap_interval(values, level=level, resamples=40_000)
    # Two far quantiles of 40,000 other draws each: 3 % of the standard error apart, times four.
    slack = 0.12 * np.std(values) / math.sqrt(count)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=slack)


@pytest.mark.parametrize("count", [FEWEST_SCENES, 8, 30])
def test_an_interval_of_95_percent_holds_the_true_mean_about_that_often(count):
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(3, 1, size=count).tolist(), resamples=1000) for _ in range(400)]
    held = sum(low < 3 < high for low, high in intervals) / 400
    # They hold it in 92.5 % (6 scenes) to 95 %, plain percentiles of 6 in 86 %; 400 trials are good to 1.3 % each way.
    assert 0.9 < held < 0.98


@given(figures)
def test_the_same_values_give_the_same_interval_around_their_mean(values):
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    if len(set(values)) > 1 and np.std(values) > 1e-3:
        assert bootstrap_interval(values, level=0.5)[0] >= low
        assert low < np.mean(values) < high


def test_another_seed_draws_other_scenes():
    values = np.random.default_rng(0).normal(size=20).tolist()
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


@pytest.mark.parametrize("values", [[], [1.0] * 5, [1.0] * 9 + [math.nan], [1.0] * 9 + [None], [1.0] * 9 + [math.inf]])
def test_too_few_scenes_or_one_without_a_figure_have_no_interval(values):
    assert bootstrap_interval(values) is None
    assert paired_difference(values, [0.0] * len(values)) is None
    assert paired_difference([0.0] * len(values), values) is None


def test_differences_are_taken_scene_by_scene():
    baseline = [1.0, 10.0, 100.0, 1000.0, 2.0, 20.0]
    mean, low, high = paired_difference([value + 0.5 for value in baseline], baseline)
    assert mean == low == high == 0.5
    assert not is_within_noise((low, high))
    alone = bootstrap_interval(baseline)
    assert high - low < alone[1] - alone[0]


def test_a_difference_has_the_sign_of_the_variant():
    mean, low, high = paired_difference([0.0, 1.0, 2.0] * 2, [1.0, 2.0, 4.0] * 2)
    assert mean == pytest.approx(-4 / 3) and low < mean < high < 0


@given(figures, st.integers(0, 2**32 - 1))
def test_the_interval_of_a_difference_is_that_of_the_differences(values, seed):
    baseline = np.random.default_rng(seed).normal(size=len(values)).tolist()
    mean, *interval = paired_difference(values, baseline, level=0.8, resamples=50, seed=3)
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    assert mean == pytest.approx(np.mean(differences), abs=1e-9)
    assert tuple(interval) == bootstrap_interval(differences, level=0.8, resamples=50, seed=3)


def test_scenes_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="3 scenes stand against 2"):
        paired_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("interval", "within"),
    [((-1, 1), True), ((0, 0), True), ((0, 1), True), ((-1, 0), True), ((0.1, 1), False), ((-1, -0.1), False)],
)
def test_a_difference_is_noise_where_zero_lies_inside(interval, within):
    assert is_within_noise(interval) is within


def test_a_variant_equal_to_its_baseline_does_not_differ():
    values = np.random.default_rng(0).normal(size=8).tolist()
    _, *interval = paired_difference(values, values)
    assert is_within_noise(tuple(interval))
