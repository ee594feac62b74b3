"""The report: no variant is ever dropped, a failure has its reason, and no ratio is taken between devices."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import sample_results
from msgspec.structs import replace
from sample_results import error, speed, status

from vggt_quant.cli import main as cli
from vggt_quant.report.collect import collect, write_report
from vggt_quant.results.report_schema import ComparisonReport, VariantRow
from vggt_quant.results.schema import read, write

ROOT = Path(__file__).parents[1]
EARLIER, LATER = "2025-11-23T20:00:00+00:00", "2025-11-23T23:00:00+00:00"


@pytest.fixture(name="run")
def _run(tmp_path) -> tuple[Path, Path, list[str]]:
    return sample_results.write_run(tmp_path)


def row_of(report: ComparisonReport, variant: str) -> VariantRow:
    return next(row for row in report.variants if row.variant == variant)


def test_every_variant_has_a_row_in_the_order_asked_for(run):
    report = collect(*run)
    assert [row.variant for row in report.variants] == sample_results.VARIANTS
    outcomes = {row.variant: row.outcome for row in report.variants}
    assert outcomes.pop("fp8") == "unsupported" and outcomes.pop("gptq_int4") == "failed"
    assert set(outcomes.values()) == {"ok"}
    assert report.errors == [] and report.partial is False
    assert (
        report.model.label == "VGGT-1B"
        and report.images.scenes[0].shape[0] == 8
        and report.reference.scenes[0].key == "k"
    )


def test_scenes_of_all_variants_stand_in_the_report_with_estimates_over_them(tmp_path):
    report = collect(*sample_results.write_known_run(tmp_path))
    row = row_of(report, "int4_group64")
    assert [scene.scene for scene in row.accuracy.scenes] == list(sample_results.KNOWN_SCENES)
    assert row.truth["pose_auc_30"].num_scenes == 6 and row.truth["pose_auc_30"].within_noise is False
    assert row.truth["pose_auc_30"].low < row.truth["pose_auc_30"].mean < row.truth["pose_auc_30"].high
    assert row_of(report, "bf16").truth["pose_auc_30"].within_noise is True
    assert row_of(report, "gptq_int4").truth == {}


def test_scenes_to_calibrate_with_are_missed_only_where_there_should_be_some(run):
    results, logs, variants = run
    calibration = results / "calibration.json"
    assert collect(*run).calibration is None and collect(*run).errors == []
    (missing,) = collect(*run, calibration=calibration).errors
    assert missing.stage == "calibration" and "did not run" in missing.message
    write(status("calibration", None, error("calibration", "shares a photo")), logs / "calibration.status.json")
    (failed,) = collect(*run, calibration=calibration).errors
    assert failed.message == "shares a photo"
    assert collect(*run).errors == [], "left by an earlier run"
    (logs / "calibration.status.json").unlink()
    write(sample_results.IMAGES, calibration)
    assert collect(*run, calibration=calibration).calibration == sample_results.IMAGES


def test_ratios_are_those_of_the_files(run):
    row = row_of(collect(*run), "bf16")
    assert row.compression_vs_fp32 == sample_results.FP32_BYTES / 2_513_074_860
    assert row.speedup_vs_fp32 == 401.3 / 96.4 and row.speedup_vs_bf16 == 1


def test_times_of_different_devices_are_never_divided(run):
    row = row_of(collect(*run), "pytorch_dynamic_int8")
    assert row.outcome == "ok" and row.speed.latency_ms_median == 14210
    assert row.speedup_vs_fp32 is None and row.speedup_vs_bf16 is None
    assert row.compression_vs_fp32 is not None, "a file has the same size everywhere"


def test_times_of_different_shapes_are_never_divided(run):
    results, logs, variants = run
    write(speed("bf16", 96.4, 0.8, shape=[1, 2, 3, 350, 518]), results / "speed" / "bf16.json")
    assert row_of(collect(results, logs, variants), "bf16").speedup_vs_fp32 is None


def test_times_of_two_machines_of_the_same_kind_are_never_divided(run):
    results, logs, variants = run
    other = replace(sample_results.provenance(), device_name="NVIDIA A100-SXM4-80GB")
    write(speed("bf16", 96.4, 0.8, provenance=other), results / "speed" / "bf16.json")
    assert row_of(collect(results, logs, variants), "bf16").speedup_vs_fp32 is None


def test_without_fp32_there_are_no_ratios_to_it(run):
    results, logs, variants = run
    shutil.rmtree(results / "speed")
    (results / "quantize" / "fp32.json").unlink()
    rows = collect(results, logs, variants).variants
    assert {row.compression_vs_fp32 for row in rows} == {None} == {row.speedup_vs_fp32 for row in rows}


def test_a_killed_step_gives_its_error_to_the_row(run):
    row = row_of(collect(*run), "gptq_int4")
    assert row.error.kind == "signal" and row.error.exit_code == 137 and row.error.stage == "quantize"
    assert row.quantize is None and row.accuracy is None and row.speed is None


def test_a_row_keeps_what_was_measured_before_it_failed(run):
    results, logs, variants = run
    (results / "speed" / "int4_group64.json").unlink()
    write(status("speed", "int4_group64", error("speed", "out of memory")), logs / "speed_int4_group64.status.json")
    row = row_of(collect(results, logs, variants), "int4_group64")
    assert row.outcome == "failed" and row.error.message == "out of memory"
    assert row.quantize.checkpoint_bytes == 896_000_000 and row.accuracy is not None
    assert row.compression_vs_fp32 is not None and row.speedup_vs_fp32 is None


@pytest.mark.parametrize("stage", ["quantize", "accuracy", "speed"])
def test_a_step_that_never_ran_is_named(run, stage):
    results, logs, variants = run
    (results / stage / "bf16.json").unlink()
    row = row_of(collect(results, logs, variants), "bf16")
    assert row.outcome == "failed" and row.error.stage == stage
    assert row.error.message == f"{stage} did not run: {stage}/bf16.json is missing; run the workflow again."


def test_a_real_failure_is_told_before_the_steps_that_it_kept_from_running(run):
    results, logs, variants = run
    (results / "quantize" / "bf16.json").unlink()
    (results / "accuracy" / "bf16.json").unlink()
    write(status("speed", "bf16", error("speed", "no kernel image")), logs / "speed_bf16.status.json")
    (results / "speed" / "bf16.json").unlink()
    assert row_of(collect(results, logs, variants), "bf16").error.message == "no kernel image"


@pytest.mark.parametrize(("created", "outcome"), [(EARLIER, "ok"), (LATER, "failed")])
def test_a_failure_counts_unless_a_later_result_exists(run, created, outcome):
    results, logs, variants = run
    failure = status("speed", "bf16", error("speed", "boom"), created=created)
    write(failure, logs / "speed_bf16.status.json")
    row = row_of(collect(results, logs, variants), "bf16")
    assert row.outcome == outcome and (row.speed is None) == (outcome == "failed")


def test_the_latest_of_several_statuses_counts(run):
    results, logs, variants = run
    write(status("quantize", "gptq_int4", error("quantize", "second try"), LATER), logs / "a" / "x.status.json")
    write(status("quantize", "gptq_int4", error("quantize", "first try"), EARLIER), logs / "z" / "y.status.json")
    assert row_of(collect(results, logs, variants), "gptq_int4").error.message == "second try"


def test_a_status_of_success_does_not_fail_a_row(run):
    results, logs, variants = run
    write(status("speed", "bf16", None, LATER), logs / "speed_bf16.status.json")
    assert row_of(collect(results, logs, variants), "bf16").outcome == "ok"


def test_unsupported_is_no_failure_even_if_nothing_ran_after_it(run):
    results, logs, variants = run
    (results / "quantize" / "fp8.json").unlink()
    unsupported = error("quantize", "no FP8 on this GPU", "unsupported", 0)
    write(status("quantize", "fp8", unsupported), logs / "quantize_fp8.status.json")
    row = row_of(collect(results, logs, variants), "fp8")
    assert row.outcome == "unsupported" and row.error.message == "no FP8 on this GPU"


def test_a_damaged_result_fails_its_row_with_the_name_of_the_file(run):
    results, logs, variants = run
    (results / "speed" / "bf16.json").write_text('{"variant": "bf16"')
    row = row_of(collect(results, logs, variants), "bf16")
    assert row.outcome == "failed" and "bf16.json is not a valid SpeedResult" in row.error.message


def test_a_failed_shared_step_is_an_error_of_the_report(run):
    results, logs, variants = run
    (results / "reference.json").unlink()
    write(status("reference", None, error("reference", "out of memory")), logs / "reference.status.json")
    write(status("calibrate", None, error("calibrate", "no photos")), logs / "calibrate.status.json")
    (logs / "broken.status.json").write_text("{")
    report = collect(results, logs, variants)
    assert report.reference is None
    assert [e.stage for e in report.errors] == ["report", "calibrate", "reference"]
    assert "broken.status.json" in report.errors[0].message


def test_files_of_another_version_are_told_in_one_sentence_with_the_cure_in_sight(run, tmp_path):
    results, logs, variants = run
    for path in [*results.rglob("*.json"), *logs.rglob("*.json")]:
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    report = write_report(results, logs, variants, tmp_path / "out")
    (told,) = report.errors
    count = len([*logs.rglob("*.json")]) + 3
    assert told.message.startswith("run compare again to measure again what another version wrote: ")
    assert told.message.endswith(f"/reference.json and {count - 1} more.")
    lines = (tmp_path / "out" / "comparison_summary.txt").read_text().splitlines()
    assert (
        "  bf16 failed in quantize: quantize/bf16.json is of another version; run compare again to measure again."
        in lines
    )
    assert sum("another version" in line for line in lines) == 1 + len(list(results.glob("quantize/*.json")))


def test_a_variant_that_nothing_names_is_refused_and_no_report_is_written(run, tmp_path, capsys):
    results, logs, _ = run
    words = ["report", "--results", str(results), "--logs", str(logs), "--output", str(tmp_path / "out"), "--variants"]
    assert cli.main([*words, "fp32,int4_group65"]) == 2
    assert "There is no variant 'int4_group65' (did you mean 'int4_group64'?); there are " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine.yaml").write_text("mine: {method: cast}\n")
    assert cli.main([*words, "mine", "--variants-file", str(tmp_path / "mine.yaml")]) == 0
    assert cli.main([*words, "gone"]) == 2
    (results / "speed" / "gone.json").write_text("{}")
    assert cli.main([*words, "gone"]) == 0, "a result names it"


def test_a_report_about_nothing_says_so(tmp_path):
    report = write_report(tmp_path / "none", tmp_path / "no_logs", ["fp32", "bf16"], tmp_path / "out", partial=True)
    assert [row.outcome for row in report.variants] == ["failed", "failed"]
    assert [e.stage for e in report.errors] == ["model", "images", "reference"]
    text = (tmp_path / "out" / "comparison_summary.txt").read_text()
    assert "PARTIAL" in text and "No variant finished" in text and "quantize did not run" in text


def test_a_report_without_variants_is_written(tmp_path):
    assert write_report(tmp_path, tmp_path, [], tmp_path / "out").variants == []


def test_three_files_are_written_and_the_report_reads_back(run, tmp_path):
    report = write_report(*run, tmp_path / "out", partial=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison_plots.png", "comparison_report.json", "comparison_summary.txt"]
    assert read(ComparisonReport, tmp_path / "out" / "comparison_report.json") == report
    assert report.partial is True


@pytest.mark.parametrize("make_run", [sample_results.write_run, sample_results.write_known_run])
def test_a_real_report_fits_the_exported_schema(make_run, tmp_path):
    write_report(*make_run(tmp_path), tmp_path / "out")
    schema = json.loads((ROOT / "workflow" / "schemas" / "comparison_report.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "out" / "comparison_report.json").read_text()), schema)


def test_the_report_is_made_without_torch():
    unwanted = {"torch", "vggt_quant.evaluation.metrics", "skimage"}
    code = f"import sys, vggt_quant.report.collect; print(sorted({unwanted} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
