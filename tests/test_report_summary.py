"""The page of text: every number in its column, no line too long, and a footnote for what does not compare."""

import dataclasses
from pathlib import Path

import pytest
import sample_results
from sample_results import accuracy, error, scene, speed, status

from vggt_quant.report import collect
from vggt_quant.report_summary import RANDOM_WEIGHTS_NOTE, summary
from vggt_quant.results import MethodRow, write
from vggt_quant.row_values import checkpoint_bytes, format_bytes, format_number, latency_ms


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
    for part in ("VGGT-1B, 1,256.5 M", "8 of 350 x 518", sample_results.GPU, "torch 2.11.0, CUDA 13.0", report.created):
        assert part in text
    assert "PARTIAL" not in text and "Random" not in text


def test_rows_of_another_device_and_notes_have_footnotes(run):
    results, logs, variants = run
    noted = speed("bf16", 96.4, 0.8, note="CUDA graph was off")
    write(noted, results / "speed" / "bf16.json")
    broken = dataclasses.replace(scene(None, None, None).outputs["depth"], error="3 values are not finite")
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
def test_no_line_is_longer_than_120_columns(run, name, folder):
    report = collect(*run)
    rows = [dataclasses.replace(row, variant=f"{row.variant}_{name}") for row in report.methods]
    images = dataclasses.replace(report.images, folder=folder)
    text = summary(dataclasses.replace(report, methods=[*report.methods, *rows], images=images, partial=True))
    assert max(map(len, text.splitlines())) <= 120
    assert all(line == line.rstrip() for line in text.splitlines())


def test_long_names_keep_both_ends(run):
    report = collect(*run)
    long = dataclasses.replace(report.methods[1], variant="gptq_" + "x" * 80 + "_group32")
    text = summary(dataclasses.replace(report, methods=[report.methods[0], long]))
    assert any(line.startswith("gptq_x") and "~" in line and "_group32 " in line for line in text.splitlines())


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
    row = MethodRow(variant="x", outcome="failed", error=None)
    assert checkpoint_bytes(row) is None and latency_ms(row) is None
