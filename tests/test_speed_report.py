"""The table of cost against size, from made-up results: growth, what fits, what compares with what, the look."""

import re

import numpy as np
import pytest
import sample_results
from msgspec.structs import replace
from PIL import Image
from speed_sweeps import FIRST, NUM_IMAGES, SECOND, size, sweep, write_sweeps

from vggt_quant.cli import main as cli
from vggt_quant.report import speed_report, speed_summary
from vggt_quant.results import growth
from vggt_quant.results.growth import GIB
from vggt_quant.results.intervals import median_interval
from vggt_quant.results.schema import read, write
from vggt_quant.results.speed_schema import Capacity, Growth, SizeResult, SpeedTable


def test_growth_is_found_again():
    values = [9 + 4.2 * n + 0.11 * n**2 for n in NUM_IMAGES]
    found = growth.fit(NUM_IMAGES, values, degree=2)
    expected = (9, 4.2, 0.11)
    assert (found.constant, found.linear, found.quadratic) == pytest.approx(expected, rel=1e-6)  # solved in float64
    assert growth.at(found, 200) == pytest.approx(9 + 4.2 * 200 + 0.11 * 200**2)


def test_no_term_of_a_growth_is_negative():
    """Free least squares of a time that grows by less and less would bend down and end below zero."""
    found = growth.fit([1, 2, 5, 10], [10, 18, 30, 35], degree=2)
    assert min(found.constant, found.linear, found.quadratic) >= 0


def test_a_growth_weighs_relative_errors():
    """One per cent off at 1 image counts as much as at 100, whose milliseconds are a hundred times as many."""
    values = np.array([10.0, 20, 50, 100, 200, 500, 1000]) * [1.01, 0.99, 1.01, 0.99, 1.01, 0.99, 1.01]
    found = growth.fit(NUM_IMAGES, values, degree=1)
    assert all(abs(growth.at(found, n) / v - 1) < 0.02 for n, v in zip(NUM_IMAGES, values, strict=True))


@pytest.mark.parametrize(("numbers", "values", "linear"), [([3], [7.0], None), ([1, 3], [7.0, 9.0], 1.0)])
def test_too_few_sizes_lower_the_degree(numbers, values, linear):
    found = growth.fit(numbers, values, degree=2)
    assert found is None if linear is None else found.linear == pytest.approx(linear) and found.quadratic == 0


def peaks(**peak_gib):
    return [size(int(number[1:]), 1.0, gib * GIB) for number, gib in peak_gib.items()]


def tried(number, peak_gib, gib=8):
    """Run in a memory of so many GiB: it fits with that peak, or not."""
    if peak_gib is None:
        return SizeResult(num_images=number, outcome="out_of_memory", tried_gib=gib)
    return size(number, 1.0, peak_gib * GIB, tried_gib=gib)


@pytest.mark.parametrize(
    ("sizes", "number", "how"),
    [
        (peaks(n1=2.05, n10=2.95), 60, "fitted"),  # 1.95 + 0.1 n
        (peaks(n1=2, n10=2.9, n60=7.99), 60, "measured"),
        (peaks(n1=2, n10=2.9, n50=8.01), 49, "fitted"),  # not what was measured not to fit
        (peaks(n1=2, n10=2.9, n11=9), 10, "measured"),
        (peaks(n1=9, n2=10), 0, "measured"),
        (peaks(n1=2, n10=2), None, "fitted"),
        ([*peaks(n1=2.05, n10=2.95), tried(60, None)], 59, "fitted"),  # what the allocator keeps back counts
        ([*peaks(n1=2.05, n10=2.95), tried(60, None), tried(58, 7.75)], 58, "measured"),
        ([*peaks(n1=2.05, n10=2.95), tried(60, None), tried(50, 6.95)], 59, "fitted"),
        ([*peaks(n1=2.05, n10=2.95), tried(60, 7.95)], 60, "measured"),
        ([*peaks(n1=2.05, n10=2.95, n60=7.95), tried(60, None)], 59, "fitted"),
        ([*peaks(n1=2.05, n10=2.95), tried(60, None, gib=16)], 60, "fitted"),  # of another memory
        ([], None, "fitted"),
    ],
)
def test_what_fits_into_a_memory_is_fitted_and_never_against_what_was_measured(sizes, number, how):
    found = growth.capacity(8, sizes)
    assert found.how == how
    assert found.num_images == number


def test_a_memory_that_was_tried_has_a_column(tmp_path):
    one = sweep("int8", (8, 4.5, 0.15), (1.32, 0.05), filled=[tried(50, 3.9, gib=4), tried(53, None, gib=4)])
    text = speed_summary.summary(speed_report.gather(tmp_path, write_sweeps(tmp_path, [one], []), "", [1], (350, 518)))
    assert re.search(r"peak +4 GiB +8 GiB +16 GiB", text)
    assert re.search(r"^int8 .* 50 +~133", text, re.M)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    draws = np.random.default_rng(0).lognormal(sigma=0.3, size=(400, 12))
    intervals = [median_interval(list(values), resamples=500) for values in draws]
    share = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.92 < share < 0.995  # 95 % within three standard errors of 400 draws
    assert median_interval([1.0] * 5) is None


def test_a_capacity_far_beyond_what_was_run_is_a_bound(tmp_path):
    """1.32 + 0.05 n GiB from at most 20 images: 133 fit into 8 GiB, and what 16 GiB hold is not known."""
    wanted = write_sweeps(tmp_path, [sweep("int8", (8, 4.5, 0.15), (1.32, 0.05), numbers=[1, 20])], [])
    text = speed_summary.summary(speed_report.gather(tmp_path, wanted, "", [1, 20], (350, 518)))
    assert text.split("80 GiB")[1].splitlines()[2].split()[-4:] == ["~133", ">200", ">200", ">200"]
    assert "> where that is beyond 10 times the images that were run" in text


@pytest.mark.parametrize(("median", "end", "shown"), [(13.46, 13.48, "13.5 ±0.1"), (9.997, 10.06, "10.0 ±0.1")])
def test_an_interval_is_never_shown_too_narrow_and_in_the_digits_of_its_median(median, end, shown, tmp_path):
    one = sweep("bf16", (9, 5, 0.16), (2.4, 0.05), numbers=[1])
    timed = {"latency_ms_median": median, "latency_ms_low": median, "latency_ms_high": end}
    one = replace(one, sizes=[replace(one.sizes[0], **timed)])
    text = speed_summary.summary(speed_report.gather(tmp_path, write_sweeps(tmp_path, [one], []), "", [1], (350, 518)))
    assert f"bf16   {shown}" in text


@pytest.fixture
def table(tmp_path):
    """Two runs: the second is slower as a whole, and timed one variant and the baseline again."""
    bf16 = sweep("bf16", (9, 5, 0.16), (2.4, 0.05))
    later = sweep("bf16", (18, 10, 0.32), (2.4, 0.05), started=SECOND)
    sweeps = [
        later,
        sweep("int8", (8, 4.5, 0.15), (1.32, 0.05)),
        sweep("int4", (16, 9, 0.3), (0.8, 0.05), started=SECOND),
        sweep("near", (9.05, 5, 0.16), (2.4, 0.05)),
        sweep("fp32", (60, 80, 0.3), (4.7, 0.9), full_at=50),
    ]
    wanted = write_sweeps(tmp_path, sweeps, [bf16, later])
    return speed_report.gather(tmp_path, {**wanted, "absent": "k"}, "random weights", NUM_IMAGES, (350, 518))


def cells(table, variant):
    return next(row.cells for row in table.rows if row.variant == variant)


def test_a_speedup_compares_with_the_baseline_of_the_same_run(table):
    assert cells(table, "int8")[2].speedup_vs_bf16 == pytest.approx(38 / 34.25)
    assert cells(table, "int4")[2].speedup_vs_bf16 == pytest.approx(76 / 68.5)
    assert cells(table, "bf16")[2].speedup_vs_bf16 == 1
    assert [one.started for one in table.baselines] == [FIRST, SECOND]


def test_intervals_that_touch_are_marked(table):
    assert cells(table, "int8")[0].apart_from_bf16 is True
    assert cells(table, "near")[0].apart_from_bf16 is False
    assert cells(table, "bf16")[0].apart_from_bf16 is None


def test_a_result_of_another_device_or_of_other_settings_is_not_compared(tmp_path, table):
    one = sweep("int8", (8, 4, 0.1), (1, 0.1))
    other = replace(one, provenance=replace(one.provenance, device_name="another"))
    wanted = write_sweeps(tmp_path / "b", [other, one], [sweep("bf16", (9, 5, 0.2), (2, 0.1))])
    write_sweeps(tmp_path / "b", [other], [])
    made = speed_report.gather(tmp_path / "b", wanted, "", NUM_IMAGES, (350, 518))
    assert made.rows[0].cells[0].speedup_vs_bf16 is None
    stale = speed_report.gather(tmp_path / "b", {"int8": "another key"}, "", NUM_IMAGES, (350, 518))
    assert stale.rows[0].error.message == "not measured yet"


def test_the_text_says_everything_within_the_page(table, tmp_path):
    text = speed_report.write_table(table, tmp_path)
    assert text + "\n" == (tmp_path / "speed_table.txt").read_text()
    assert max(map(len, text.splitlines())) <= 120
    for words in (
        "random weights, images of 350 x 518",
        "torch 2.11.0, CUDA 13.0, driver 580.65.06, triton 3.6.0",
        "34.2 ±0.4",  # time; the interval of 0.34 is rounded up
        "1.11x ",  # speedup
        "1.00x~",  # near
        "31.0 pose_enc",  # the lowest SQNR
        "\nabsent: not measured yet",
        "fp32: out of memory at 50 images: OutOfMemoryError: CUDA out of memory",
        f"[2] {SECOND}, bf16: 28.3, ",
    ):
        assert words in text, words
    fp32 = [line for line in text.splitlines() if line.startswith("fp32 [1]")]
    assert fp32[0].split()[-2:] == ["memory", "memory"]
    assert read(SpeedTable, tmp_path / "speed_table.json") == table


def test_a_share_of_the_roofline_stands_where_it_is_known(tmp_path):
    """Least: 9.894 TFLOP in bfloat16, 10 ms on an H100."""
    counts = {"operations": {"bfloat16": 9_894_000_000_000}, "least_bytes": 10**9}
    one = sweep("bf16", (9, 5, 0.16), (2.4, 0.05), numbers=[1, 2])
    counted = [replace(size, **counts) for size in one.sizes]
    one = replace(one, sizes=[counted[0], replace(counted[1], operations={})])
    elsewhere = replace(one, variant="int8", provenance=sample_results.provenance("cpu"))
    wanted = write_sweeps(tmp_path, [one, elsewhere], [])
    table = speed_report.gather(tmp_path, wanted, "", [1, 2], (350, 518))
    known, unknown = cells(table, "bf16")
    assert known.least_ms == pytest.approx(10) and known.roofline_share == pytest.approx(10 / 14.16)
    assert unknown.least_ms is None and unknown.roofline_share is None
    assert cells(table, "int8")[0].roofline_share is None
    block = speed_summary.summary(table).partition("Share of the roofline in %")[2].partition("\n\n")[2]
    assert [line.split() for line in block.partition("\n\n")[0].splitlines()[2:]] == [["bf16", "71"], ["int8", "-"]]


def test_a_table_without_any_share_has_no_such_block(table):
    assert "roofline" not in speed_summary.summary(table)


def test_the_table_knows_growth_and_what_fits(table):
    row = next(row for row in table.rows if row.variant == "int8")
    assert row.latency_growth_ms == Growth(
        constant=pytest.approx(8), linear=pytest.approx(4.5), quadratic=pytest.approx(0.15)
    )
    assert row.capacities[0] == Capacity(memory_gib=8, num_images=133, how="fitted")  # 1.32 + 0.05 n
    assert [one.memory_gib for one in row.capacities] == [8, 16, 24, 80]


def test_a_table_is_drawn_again_anywhere_from_the_results_alone(tmp_path, capsys):
    write_sweeps(tmp_path, [sweep("int8_symmetric", (8, 4.5, 0.15), (1.3, 0.05))], [])
    bf16 = sweep("bf16", (9, 5, 0.16), (2.4, 0.05))
    write_sweeps(tmp_path, [bf16], [bf16])
    write(sample_results.RANDOM_MODEL, tmp_path / "inputs" / "model.json")
    assert cli.main(["speed", "--redraw", str(tmp_path)]) == 0
    table = read(SpeedTable, tmp_path / "speed_table.json")
    assert [row.variant for row in table.rows] == ["bf16", "int8_symmetric"]
    assert table.num_images == NUM_IMAGES and table.label == "tiny, random weights (seed 0)"
    assert "1.11x" in capsys.readouterr().out
    assert cli.main(["speed", "--redraw", str(tmp_path), "--variants", "fp8"]) == 2
    assert "has no result of fp8; there are bf16, int8_symmetric." in capsys.readouterr().err
    (tmp_path / "sweeps" / "own.json").write_text("{")
    assert cli.main(["speed", "--redraw", str(tmp_path)]) == 2
    assert "own.json is not a valid SweepResult" in capsys.readouterr().err
    write_sweeps(tmp_path, [sweep("own", (8, 4.5, 0.15), (1.3, 0.05))], [])
    assert cli.main(["speed", "--redraw", str(tmp_path)]) == 0
    assert "\nown            1.12x" in capsys.readouterr().out  # though no variants file here knows it
    (tmp_path / "inputs" / "model.json").unlink()
    assert cli.main(["speed", "--redraw", str(tmp_path)]) == 2
    assert "model.json, which says what the weights are" in capsys.readouterr().err
    assert cli.main(["speed", "--redraw", str(tmp_path / "nowhere")]) == 2
    assert "There is no result in" in capsys.readouterr().err


def test_the_baselines_row_is_its_fullest_run(tmp_path):
    """A later piece of the table timed fewer sizes, and bf16 on those."""
    first, later = (
        sweep("bf16", (9, 5, 0.16), (2.4, 0.05), started=started, numbers=numbers)
        for started, numbers in ((FIRST, NUM_IMAGES), (SECOND, [5]))
    )
    pieces = [sweep("fp8", (8, 4, 0.1), (1, 0.1)), sweep("peer", (80, 4, 0.1), (1, 0.1), started=SECOND, numbers=[5])]
    write_sweeps(tmp_path, [*pieces, later], [first, later])
    write(sample_results.RANDOM_MODEL, tmp_path / "inputs" / "model.json")
    made = speed_report.collect(tmp_path, ["bf16", "fp8", "peer"])
    assert [cell.num_images for cell in made.rows[0].cells] == NUM_IMAGES
    assert made.rows[2].cells[0].speedup_vs_bf16 == pytest.approx(38 / 102.5)


def test_what_the_rows_cannot_say_is_a_remark(tmp_path):
    wanted = write_sweeps(tmp_path, [sweep("own", (8, 4, 0.1), (1, 0.1))], [])
    other = sample_results.provenance("cpu")
    here = replace(sweep("there", (8, 4, 0.1), (1, 0.1)), provenance=other)
    wanted |= write_sweeps(tmp_path, [here], [])
    text = speed_summary.summary(speed_report.gather(tmp_path, wanted, "random weights", NUM_IMAGES, (350, 518)))
    assert "No speedup of own, there: there is no bf16 of the same session." in text
    assert "The weights are random: SQNR checks the kernels, it does not rank variants." in text
    assert f"H100 80GB HBM3 and {other.device_name}" in text.splitlines()[1] and "CPU threads" in text
    assert "(without loading and about 0.5 GiB of the CUDA context)" in text


def test_the_picture_is_drawn_also_of_nothing(table, tmp_path):
    speed_report.write_table(table, tmp_path)
    with Image.open(tmp_path / "speed_table.png") as picture:
        assert picture.width > 2000
    rows = [row for row in table.rows if row.variant == "absent"]
    empty = replace(table, rows=rows, baselines=[])
    assert "absent: not measured" in speed_report.write_table(empty, tmp_path / "empty")
    assert (tmp_path / "empty" / "speed_table.png").is_file()
