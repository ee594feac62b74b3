"""Estimates over scenes: every variant on the same scenes, none flattered by a scene in which it failed."""

import pytest
from sample_results import METRICS, accuracy, scene, truth

from vggt_quant.report.estimates import estimate, with_estimates
from vggt_quant.results.intervals import bootstrap_interval, paired_difference
from vggt_quant.results.report_schema import VariantRow


def row(variant, *truths, **changes):
    """A variant that was judged by these truths, one a scene; None stands for a scene whose truth is not known."""
    scenes = [scene(0.01, 0.1, 30.0, scene=f"scene_{place}", truth=one) for place, one in enumerate(truths)]
    return VariantRow(variant=variant, outcome="ok", error=None, accuracy=accuracy(variant, scenes), **changes)


def test_an_estimate_holds_mean_interval_and_difference():
    values, fp32 = [0.5, 0.7, 0.9, 0.6] * 2, [0.6, 0.9, 0.9, 0.7] * 2
    found = estimate(values, fp32)
    assert found.mean == pytest.approx(0.675) and found.num_scenes == 8
    assert (found.low, found.high) == bootstrap_interval(values)
    assert (found.difference, found.difference_low, found.difference_high) == paired_difference(values, fp32)
    assert found.within_noise is False or found.difference_high == 0


@pytest.mark.parametrize(("worse", "within_noise"), [((0.01, 0.02, 0.01, 0.02), False), ((0.01, -0.02, 0.02, 0), True)])
def test_a_small_difference_in_every_scene_counts_though_scenes_differ_far_more(worse, within_noise):
    fp32 = [0.1, 0.5, 0.9, 0.3] * 2
    found = estimate([value + more for value, more in zip(fp32, worse * 2, strict=True)], fp32)
    assert found.within_noise is within_noise
    assert found.high - found.low > 0.3 > abs(found.difference)


@pytest.mark.parametrize("count", [1, 5])
def test_few_scenes_have_a_mean_and_no_interval(count):
    found = estimate([0.4] * count, [0.5] * count)
    assert (found.mean, found.num_scenes) == (pytest.approx(0.4), count)
    assert found.low is found.high is found.difference is found.within_noise is None


@pytest.mark.parametrize("values", [[], [None], [0.5, None, 0.7]])
def test_a_missing_scene_leaves_no_estimate(values):
    assert estimate(values) is None


def test_rows_get_the_figures_of_all_their_scenes_under_their_names():
    scenes = [[truth(worse, place % 2) for place in range(6)] for worse in (0, 0.01)]
    fp32, packed = with_estimates([row("fp32", *scenes[0]), row("int8", *scenes[1])], METRICS)
    assert fp32.truth["pose_auc_30"].mean == pytest.approx(0.845)
    assert fp32.truth["pose_auc_30"].difference is None, "fp32 is not compared with itself"
    assert packed.truth["pose_auc_30"].difference == pytest.approx(-0.01)
    assert packed.truth["depth_abs_rel"].difference == pytest.approx(0.01)
    assert packed.deviation["depth_abs_rel"].mean == pytest.approx(0.01), "from fp32, not from the truth"
    assert packed.deviation["depth_abs_rel"].difference is None, "a deviation from fp32 is a difference already"
    assert "rta_5" not in packed.truth and "num_pairs" not in packed.truth and "num_images" not in packed.deviation


def test_a_scene_without_truth_does_not_count_and_one_that_a_variant_failed_in_does():
    no_depth = {**truth(0, 2), "depth_abs_rel": None}
    failed = {**truth(0, 1), "depth_abs_rel": None}
    fp32, whole, broken = with_estimates(
        [
            row("fp32", truth(0, 0), truth(0, 1), no_depth, None),
            row("whole", truth(0, 0), truth(0, 1), no_depth, None),
            row("broken", truth(0, 0), failed, no_depth, None),
        ],
        METRICS,
    )
    assert fp32.truth["pose_auc_30"].num_scenes == 3
    assert fp32.truth["depth_abs_rel"].num_scenes == whole.truth["depth_abs_rel"].num_scenes == 2
    assert "depth_abs_rel" not in broken.truth and broken.truth["pose_auc_30"].num_scenes == 3


def test_without_fp32_there_are_means_and_no_differences():
    unmeasured = VariantRow(variant="fp32", outcome="failed", error=None)
    for rows in ([], [unmeasured]):
        packed = with_estimates([*rows, row("int8", *(truth(0, place) for place in range(6)))], METRICS)[-1]
        assert packed.truth["pose_auc_30"].low is not None and packed.truth["pose_auc_30"].within_noise is None
    assert with_estimates([unmeasured], METRICS)[0].truth == {}
