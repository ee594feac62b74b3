"""The page of text: every number in its column, no line too long, and a footnote for what does not compare."""

import re
from pathlib import Path

import pytest
import sample_results
from msgspec.structs import replace
from sample_results import accuracy, error, scene, speed, status

from vggt_quant.report.collect import collect
from vggt_quant.report.comparison_table import RANDOM_WEIGHTS_NOTE, summary
from vggt_quant.report.rows import checkpoint_bytes, format_bytes, format_number, latency_ms
from vggt_quant.results.report_schema import VariantRow
from vggt_quant.results.schema import AccuracyResult, read, write


@pytest.fixture(name="run")
def _run(tmp_path) -> tuple[Path, Path, list[str]]:
    return sample_results.write_run(tmp_path)


def test_the_summary_has_a_line_for_each_variant_and_its_figures(run):
    text = summary(collect(*run))
    line = next(line for line in text.splitlines() if line.startswith("int4_group128"))
    assert line.split() == [
        *("int4_group128", "853", "MB", "5.89x", "88.2", "±1.1", "4.55x", "1.09x"),
        *("3.29", "GB", "0.0187", "0.342", "19.8", "96", "%", "ok"),
    ]
    fp32 = next(line for line in text.splitlines() if line.startswith("fp32"))
    assert " exact " in fp32 and "401.3 ±1.9" in fp32


def test_the_summary_says_what_was_compared_where_and_when(run):
    report = collect(*run)
    text = summary(report)
    parts = ("VGGT-1B, 1,256.5 M", "8 photos of 350 x 518", sample_results.GPU, "torch 2.11.0, CUDA 13.0")
    for part in (*parts, report.created):
        assert part in text
    assert "PARTIAL" not in text and "Random" not in text


def truth_lines(text):
    """The part on the ground truth, line by line."""
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith("Against the ground truth")), len(lines))
    return lines[begin:]


def test_plain_photos_have_no_word_on_any_truth(run):
    text = summary(collect(*run))
    assert "truth" not in text and "scenes" not in text and "AUC" not in text


def test_the_truth_is_told_with_intervals_and_the_mark_of_noise(tmp_path):
    lines = truth_lines(summary(collect(*sample_results.write_known_run(tmp_path))))
    assert lines[0] == "Against the ground truth of 6 scenes: mean [95 % interval over the scenes]"
    rows = {line.split()[0]: line for line in lines[5 : lines.index("", 2)]}
    # Means of the six scenes: AUC 0.86 - 0.03 * (0 ... 5) = 0.785, of which int4_group128 loses 0.0383.
    assert rows["fp32"].split()[1] == "78.5" and "~" not in rows["fp32"]
    assert re.match(r"int4_group128 +74\.7 \[6\d–8\d\] ", rows["int4_group128"]) and "~" not in rows["int4_group128"]
    assert rows["int8_symmetric"].count("~") == rows["bf16"].count("~") == 6
    assert rows["gptq_int4"].split()[1:] == ["-"] * 6
    assert rows["same"].split()[3:] == ["-", "-", "46.0", "[42–49]", "-", "-", "-"]
    assert any("~ no different from fp32 within the noise of these 6 scenes" in line for line in lines)
    # All columns stand below each other, with the mark or without.
    assert len({rows[name].find("[") for name in ("fp32", "bf16", "int4_group128")}) == 1


def test_the_first_table_stays_what_it_was(tmp_path):
    known = summary(collect(*sample_results.write_known_run(tmp_path / "known"))).splitlines()
    plain = summary(collect(*sample_results.write_run(tmp_path / "plain"))).splitlines()
    begin = next(place for place, line in enumerate(plain) if line.startswith("variant"))
    assert set(plain[begin : begin + 11]) <= set(known)
    scenes = "48 photos of 350 x 518 pixels (crop) in 6 scenes in eth3d, courtyard to terrace"
    assert any(scenes in line for line in known)


def test_one_scene_has_no_interval_and_that_is_said(tmp_path):
    lines = truth_lines(summary(collect(*sample_results.write_known_run(tmp_path, 1))))
    assert "one scene (below 6 there are no intervals" in lines[0]
    assert not any("[" in line or "~" in line for line in lines[: lines.index("", 2)])
    assert "↑ more is better, ↓ less is better." in lines


def test_figures_that_stand_on_fewer_scenes_are_named(tmp_path):
    results, logs, variants = sample_results.write_known_run(tmp_path)
    for variant in (*sample_results.FINISHED, *sample_results.ON_CPU):
        made = read(AccuracyResult, results / "accuracy" / f"{variant}.json")
        blind = [replace(s, truth={**s.truth, "depth_abs_rel": None}) for s in made.scenes[:2]]
        write(replace(made, scenes=[*blind, *made.scenes[2:]]), results / "accuracy" / f"{variant}.json")
    assert "Scenes per column: depth AbsRel 4." in summary(collect(results, logs, variants))


def test_random_weights_are_not_compared_with_the_truth(tmp_path):
    text = summary(collect(*sample_results.write_known_run(tmp_path, model=sample_results.RANDOM_MODEL)))
    assert "The ground truth is known, but random weights have learnt nothing" in text
    assert "AUC" not in text and "~" not in text


def test_scenes_to_calibrate_with_are_named_and_said_to_be_others(run):
    scenes = [replace(sample_results.SCENE, name=f"room_{place}") for place in (1000, 1001, 1002)]
    calibration = replace(sample_results.IMAGES, folder="drawn", scenes=scenes)
    text = summary(replace(collect(*run), calibration=calibration))
    assert "24 photos of 350 x 518 pixels (crop) in 3 drawn rooms, room_1000 to room_1002" in text
    assert "none of their photos is compared on" in " ".join(text.split())


def test_rows_of_another_device_and_notes_have_footnotes(run):
    results, logs, variants = run
    noted = speed("bf16", 96.4, 0.8, note="CUDA graph was off")
    write(noted, results / "speed" / "bf16.json")
    broken = replace(scene(None, None, None).outputs["depth"], error="3 values are not finite")
    scenes = [scene(None, None, None, outputs={"depth": broken})]
    write(accuracy("bf16", scenes, note="CUDA graph was off"), results / "accuracy" / "bf16.json")
    lines = summary(collect(results, logs, variants)).splitlines()
    assert next(line for line in lines if line.startswith("bf16")).endswith("ok[1][2]")
    assert next(line for line in lines if line.startswith("pytorch_dynamic_int8")).endswith("ok[3]")
    assert "[1] CUDA graph was off" in lines and "[2] cake, depth: 3 values are not finite" in lines
    assert any(line.startswith(f"[3] measured on {sample_results.CPU} (cpu, memory: resident set)") for line in lines)


def test_failures_stand_below_the_table_in_one_line_each(run):
    results, logs, variants = run
    long = error("quantize", "first line " + "x" * 300 + "\nTraceback\n  second line")
    write(status("quantize", "gptq_int4", long, "2025-11-23T23:00:00+00:00"), logs / "quantize_gptq_int4.status.json")
    lines = summary(collect(results, logs, variants)).splitlines()
    failed = [line for line in lines if line.startswith("  gptq_int4 failed in quantize: first line xxx")]
    assert len(failed) == 1 and failed[0].endswith("...")
    assert "  fp8 unsupported in quantize: fp8 needs compute capability 8.9, this GPU has 8.0" in lines
    assert lines.index(failed[0]) > next(i for i, line in enumerate(lines) if line.startswith("int4_group64"))
    assert not any("Traceback" in line for line in lines)


def test_random_weights_carry_no_verdict_on_accuracy(tmp_path):
    report = collect(*sample_results.write_run(tmp_path, sample_results.RANDOM_MODEL))
    text = summary(report)
    assert RANDOM_WEIGHTS_NOTE in " ".join(text.split())
    assert "no variant is recommended for accuracy" in report.recommendation
    assert "AbsRel" not in report.recommendation


@pytest.mark.parametrize("name", ["v", "a_variant_whose_name_says_everything_about_its_settings_and_then_more" * 2])
@pytest.mark.parametrize("folder", ["photos", "/a/very/long/folder" * 20])
def test_no_line_is_longer_than_120_columns(tmp_path, name, folder):
    report = collect(*sample_results.write_known_run(tmp_path))
    rows = [replace(row, variant=f"{row.variant}_{name}") for row in report.variants]
    scenes = [replace(scene, folder=folder) for scene in report.images.scenes]
    images = replace(report.images, folder=folder, scenes=scenes)
    text = summary(replace(report, variants=[*report.variants, *rows], images=images, partial=True))
    assert max(map(len, text.splitlines())) <= 120
    assert all(line == line.rstrip() for line in text.splitlines())


def test_long_names_keep_both_ends(run):
    report = collect(*run)
    long = replace(report.variants[1], variant="gptq_" + "x" * 80 + "_group32")
    text = summary(replace(report, variants=[report.variants[0], long]))
    assert any(line.startswith("gptq_x") and "…" in line and "_group32 " in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_340_000, "12.3 MB"), (5_026_149_720, "5.03 GB")],
)
def test_bytes_are_written_in_decimal_units(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (1.234e-5, "1.2e-05"), (0.00123, "0.0012"), (0.3421, "0.342"), (5.894, "5.89")]
    + [(43.21, "43.2"), (401.3, "401"), (14210.0, "14210"), (2.5e6, "2.5e+06"), (-0.5, "-0.500")],
)
def test_numbers_keep_about_three_digits(value, text):
    assert format_number(value) == text


def test_a_row_without_results_has_no_numbers():
    row = VariantRow(variant="x", outcome="failed", error=None)
    assert checkpoint_bytes(row) is None and latency_ms(row) is None
