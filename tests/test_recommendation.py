"""The recommendation: its rules hold, it knows the noise, and random weights earn no verdict."""

import sample_results
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sample_results import METRICS, accuracy, quantize, scene, speed, truth

from vggt_quant.report.collect import collect
from vggt_quant.report.estimates import with_estimates
from vggt_quant.report.recommendation import is_within_noise, judging, losses, pareto_front, recommendation
from vggt_quant.results.report_schema import VariantRow

JUDGES = judging(METRICS)


def method_row(variant: str, size: int, median: float, iqr: float, abs_rel: float | None) -> VariantRow:
    return VariantRow(
        variant=variant,
        outcome="ok",
        error=None,
        quantize=quantize(variant, size),
        accuracy=accuracy(variant, [scene(abs_rel, 0.1, 30.0)]),
        speed=speed(variant, median, iqr),
    )


def test_the_recommendation_names_the_smallest_the_fastest_the_closest_and_the_best_trade(tmp_path):
    lines = collect(*sample_results.write_run(tmp_path)).recommendation.splitlines()
    assert lines[0] == "Smallest: int4_group128, 853 MB, 5.89x smaller than fp32."
    assert lines[1].startswith("Fastest: int8_symmetric, 81.7 ms, 4.91x faster than fp32")
    assert lines[1].endswith("no different within the noise: int8_asymmetric (82.9 ms).")
    assert lines[2] == "Closest to fp32: bf16, depth AbsRel 0.0013."
    assert lines[3].startswith("Best trade: int8_symmetric, 3.85x smaller than fp32, 4.91x faster than fp32")
    assert lines[4].startswith("Rule: ") and "at most 0.01" in lines[4]
    assert not any("gptq" in line or "fp8" in line or "dynamic" in line for line in lines)


def test_the_depth_limit_decides_the_trade():
    rows = [
        method_row("fp32", 100, 100, 1, 0.0),
        method_row("tiny", 10, 50, 1, 0.011),
        method_row("mid", 40, 60, 1, 0.009),
    ]
    assert "Best trade: mid" in recommendation(rows, METRICS, random_weights=False)
    assert "Best trade of size and time alone: tiny" in recommendation(rows, METRICS, random_weights=True)


def test_a_variant_without_a_depth_error_is_no_trade():
    rows = [method_row("fp32", 100, 100, 1, 0.0), method_row("nan", 10, 10, 1, None)]
    assert "Best trade: fp32 itself" in recommendation(rows, METRICS, random_weights=False)
    assert "Closest to fp32: not known" in recommendation(rows, METRICS, random_weights=False)


def test_where_the_truth_is_known_what_loses_nothing_is_preferred_to_a_limit(tmp_path):
    """int8 loses nothing in these scenes, 4 bits and dynamic int8 lose in all of them."""
    lines = collect(*sample_results.write_known_run(tmp_path)).recommendation.splitlines()
    assert lines[3] == (
        "Against the truth of 6 scenes, no loss beyond the noise: bf16, int8_symmetric, int8_asymmetric."
    )
    assert "int4_group128 (pose AUC@30 by 3.8 points, pose AUC@5 by 7.7 points, " in lines[4]
    assert "cloud error by 3.8 cm)" in lines[4]
    assert lines[5].startswith("Best trade: int8_symmetric, ") and "no loss against the truth" in lines[5]
    assert lines[6].endswith("(fp32, bf16, int8_symmetric, int8_asymmetric).") and "at most" not in lines[6]


def test_the_truth_decides_even_where_the_deviation_from_fp32_is_large_or_small():
    def row(variant, size, abs_rel, worse):
        scenes = [scene(abs_rel, 0.1, 30.0, scene=str(i), truth=truth(more, i)) for i, more in enumerate(worse * 2)]
        return replace(method_row(variant, size, 50, 1, abs_rel), accuracy=accuracy(variant, scenes))

    far = row("far_from_fp32_and_no_worse", 10, 0.05, (0.01, -0.01, 0.02, -0.02))
    near = row("near_fp32_and_worse", 5, 0.001, (0.01, 0.02, 0.01, 0.02))
    rows = with_estimates([row("fp32", 100, 0.0, (0, 0, 0, 0)), far, near], METRICS)
    assert losses(rows[1], JUDGES) == {} and set(losses(rows[2], JUDGES)) == set(JUDGES)
    assert "Best trade: far_from_fp32_and_no_worse" in recommendation(rows, METRICS, random_weights=False)
    better = row("better", 10, 0.05, (-0.01, -0.02, -0.01, -0.02))
    assert losses(with_estimates([row("fp32", 100, 0.0, (0, 0, 0, 0)), better], METRICS)[1], JUDGES) == {}


def test_a_loss_below_the_last_digit_that_is_shown_is_none_however_regular_it_is():
    def row(variant, worse):
        scenes = [scene(0.01, 0.1, 30.0, scene=str(i), truth=truth(worse, i)) for i in range(6)]
        return VariantRow(variant=variant, outcome="ok", error=None, accuracy=accuracy(variant, scenes))

    _, tiny, plain = with_estimates([row("fp32", 0.0), row("tiny", 0.0009), row("plain", 0.0011)], METRICS)
    assert tiny.truth["pose_auc_30"].within_noise is False
    # The point error of `truth` grows half as fast, AUC@5 twice: 0.0018 is above the last digit.
    assert set(losses(tiny, JUDGES)) == {"pose_auc_5"}
    assert set(losses(plain, JUDGES)) == set(JUDGES) - {"point_error_of_scene_size"}


def test_a_variant_that_lacks_a_figure_is_not_called_lossless():
    """Its depth was not finite in one scene, so the mean of the others would flatter it."""

    def row(variant, size, broken):
        scenes = [
            scene(0.01, 0.1, 30.0, scene=str(i), truth=truth(0, i) | (broken if i == 2 else {})) for i in range(8)
        ]
        return replace(method_row(variant, size, 50, 1, 0.01), accuracy=accuracy(variant, scenes))

    rows = with_estimates(
        [row("fp32", 100, {}), row("broken", 10, {"depth_abs_rel": None}), row("whole", 20, {})], METRICS
    )
    text = recommendation(rows, METRICS, random_weights=False)
    assert "no loss beyond the noise: whole." in text
    assert "Worse than fp32: broken (no depth AbsRel)." in text
    assert "Best trade: whole" in text


def test_one_scene_tells_no_loss_from_noise_so_the_limit_decides(tmp_path):
    text = collect(*sample_results.write_known_run(tmp_path, 1)).recommendation
    assert "truth" not in text and "at most 0.01" in text


def test_random_weights_are_not_judged_by_the_truth(tmp_path):
    text = collect(*sample_results.write_known_run(tmp_path, model=sample_results.RANDOM_MODEL)).recommendation
    assert "truth" not in text and "Best trade of size and time alone" in text


def test_slower_and_larger_variants_are_called_so():
    slow = replace(method_row("slow", 10, 200, 1, 0.1), speedup_vs_fp32=0.5, compression_vs_fp32=10.0)
    text = recommendation([slow], METRICS, random_weights=False)
    assert "Fastest: slow, 200 ms, 2.00x slower than fp32." in text and "Best trade: none" in text


def test_a_difference_within_the_noise_is_no_advantage():
    fp32, same = method_row("fp32", 100, 100.0, 4.0, 0.0), method_row("same", 50, 97.0, 4.0, 0.001)
    assert is_within_noise(fp32, same) and not is_within_noise(fp32, method_row("faster", 50, 95.0, 4.0, 0.001))
    text = recommendation([fp32, same], METRICS, random_weights=False)
    assert "no different within the noise: fp32 (100 ms)" in text and "as fast as fp32 within the noise" in text


def test_rows_without_any_time_still_get_a_smallest():
    rows = [replace(method_row(name, size, 1, 1, 0.1), speed=None) for name, size in (("a", 5), ("b", 3))]
    text = recommendation(rows, METRICS, random_weights=False)
    assert text.startswith("Smallest: b, 3 B.") and "no time was measured" in text


def test_files_of_nearly_the_same_size_are_named_together():
    rows = [method_row("a", 1000, 10, 1, 0.1), method_row("b", 1010, 10, 1, 0.1), method_row("c", 1011, 10, 1, 0.1)]
    assert recommendation(rows, METRICS, random_weights=False).startswith("Smallest: a, 1.00 kB; within 1 % of it: b.")


def test_only_the_reference_is_no_comparison():
    assert "Only fp32 finished" in recommendation([method_row("fp32", 100, 100, 1, 0.0)], METRICS, random_weights=False)


values = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(values, min_size=1, max_size=8), st.booleans())
def test_the_front_is_never_empty_and_no_outsider_beats_all_of_it(points, random_weights):
    rows = [method_row(f"v{i}", size, time, 0.0, depth / 1000) for i, (size, time, depth) in enumerate(points)]
    front = pareto_front(rows, random_weights=random_weights)
    kept = {row.variant for row in front}
    axes = 2 if random_weights else 3
    for i, point in enumerate(points):
        beaten = any(
            all(a <= b for a, b in zip(other[:axes], point[:axes], strict=True)) and other[:axes] != point[:axes]
            for other in points
        )
        assert (f"v{i}" in kept) == (not beaten)


def test_a_time_from_another_device_wins_nothing():
    rows = [method_row("fp32", 100, 100, 1, 0.0), method_row("bf16", 50, 50, 1, 0.001)]
    elsewhere = replace(method_row("elsewhere", 40, 5, 1, 0.001), speed=speed("x", 5, 1, device="cpu"))
    lines = recommendation([*rows, elsewhere], METRICS, random_weights=False).splitlines()
    assert lines[0].startswith("Smallest: elsewhere"), "a file has the same size everywhere"
    assert lines[1].startswith("Fastest: bf16") and lines[3].startswith("Best trade: bf16")
    assert "elsewhere" not in "".join(lines[3:])


def test_a_lead_in_time_within_the_noise_keeps_no_variant_on_the_front():
    small, large = method_row("small", 10, 101.0, 4.0, 0.001), method_row("large", 20, 100.0, 4.0, 0.001)
    assert [row.variant for row in pareto_front([small, large], random_weights=False)] == ["small"]
    clearly_faster = method_row("large", 20, 90.0, 4.0, 0.001)
    assert len(pareto_front([small, clearly_faster], random_weights=False)) == 2
