"""The workflow, run for real on a copy: what is cached, what an edit reruns, what a failing variant leaves behind.

One run fails on purpose in three ways, a second one repeats what failed; everything else is asked of dry runs.
"""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from processes import install_driver
from workflow_project import Project, described, rules, said

from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import AccuracyResult, QuantizeResult, SpeedResult, Status, read, read_outcome

pytestmark = pytest.mark.workflow

GOOD = {
    "fp32": {"method": "cast", "dtype": "float32"},
    "int8_symmetric": {"method": "round_to_nearest", "config": {"format": "w8a16"}},
    "int4_group128": {"method": "round_to_nearest", "config": {"format": "w4a16", "group_size": 128}},
}
FAILING = {
    "broken": {"method": "raises"},
    "killed": {"method": "dies"},
    # Less than the imports alone take, so the first thing that the work asks for is refused, on any machine.
    "hungry": {"method": "round_to_nearest", "config": {"format": "w8a16"}, "memory_limit_mb": 60},
}
OPTIONAL = {
    "maybe_broken": {"method": "raises_too", "optional": True},
    "maybe_killed": {"method": "dies_too", "optional": True},
}
VARIANTS = {**GOOD, **FAILING, **OPTIONAL}
REPORT_FILES = ("comparison_report.json", "comparison_summary.txt", "comparison_plots.png")

METHOD = '''"""A method of the tests."""

import os
import signal

from vggt_quant.quantization.methods import MethodConfig


class Config(MethodConfig, frozen=True, kw_only=True):
    """Nothing to set."""


def quantize(model, layers, config, replace, calibration):
    """Do what the test asks for."""
    {action}
'''
RAISE = 'raise RuntimeError("the scale of layer 7 is lost")'
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def stages(*variants, of=("quantize", "accuracy", "speed")):
    return {f"{stage}_{variant}" for stage in of for variant in variants}


def hashes(process, rule):
    """What a dry run names as changed, before and now."""
    return set(re.findall(r"\b[0-9a-f]{64}\b", described(process)[rule]))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"), VARIANTS)
    for name, action in (("raises", RAISE), ("dies", DIE), ("raises_too", RAISE), ("dies_too", DIE)):
        (project.root / "vggt_quant" / "quantization" / "methods" / f"{name}.py").write_text(
            METHOD.format(action=action)
        )
    return project


@pytest.fixture(scope="module")
def failed(project):
    """The first run: three variants fail. Its results are kept aside, since the next run goes on in the same folder."""
    process = project.snakemake()
    shutil.copytree(project.run / "results", project.root / "after_failure")
    return SimpleNamespace(process=process, results=project.root / "after_failure")


@pytest.fixture(scope="module")
def mended(project, failed):
    """The second run, after each failing variant was mended in its way."""
    for method in ("raises", "dies"):
        path = project.root / "vggt_quant" / "quantization" / "methods" / f"{method}.py"
        path.write_text(METHOD.format(action="pass"))
    project.variants.write_text(project.variants.read_text().replace("memory_limit_mb: 60", "memory_limit_mb: 100000"))
    process = project.snakemake()
    assert process.returncode == 0, process.stderr
    return process


def test_a_failing_variant_fails_the_run_and_the_others_finish(failed):
    assert failed.process.returncode == 1
    for variant in GOOD:
        for stage, kind in (("quantize", QuantizeResult), ("accuracy", AccuracyResult), ("speed", SpeedResult)):
            assert read(kind, failed.results / stage / f"{variant}.json").outcome == "ok"
    for variant in FAILING:
        assert not (failed.results / "quantize" / f"{variant}.json").exists()


def test_status_and_traceback_of_a_failing_variant_are_kept(failed):
    error = {v: read(Status, failed.results / "logs" / f"quantize_{v}.status.json").error for v in FAILING}
    log = {v: (failed.results / "logs" / f"quantize_{v}.log").read_text() for v in FAILING}
    assert error["broken"].message == "RuntimeError: the scale of layer 7 is lost"
    assert "methods/raises.py" in error["broken"].traceback and error["broken"].traceback in log["broken"]
    assert (error["killed"].kind, error["killed"].exit_code) == ("signal", 137)
    assert "killed by signal 9 (SIGKILL)" in log["killed"]
    assert (error["hungry"].kind, error["hungry"].exit_code) == ("out_of_memory", 1)
    assert "its limit of 60 MB" in log["hungry"]


def test_a_failing_run_reports_what_there_is(failed):
    assert not (failed.results / "comparison_report.json").exists()
    assert sorted(path.name for path in (failed.results / "partial").iterdir()) == sorted(REPORT_FILES)
    report = read(ComparisonReport, failed.results / "partial" / "comparison_report.json")
    assert report.partial
    rows = {row.variant: row for row in report.variants}
    assert list(rows) == list(VARIANTS)
    assert {variant for variant, row in rows.items() if row.outcome == "failed"} == {*FAILING, *OPTIONAL}
    assert rows["broken"].error.message == "RuntimeError: the scale of layer 7 is lost"
    assert rows["int8_symmetric"].speed.latency_ms_median > 0


def test_a_failing_run_ends_with_what_failed_and_where_to_read_on(failed):
    shown = failed.process.stdout
    assert "broken failed in quantize: RuntimeError: the scale of layer 7 is lost" in shown
    assert "killed failed in quantize: killed by signal 9 (SIGKILL)" in shown
    assert "/results/logs" in shown.splitlines()[-1]
    assert "repeats only those" in shown.splitlines()[-1]
    assert '"outcome":' not in failed.process.stderr, "status files are no reading matter"


def test_the_reason_of_an_optional_variant_is_its_result(failed, mended, project):
    results = project.run / "results"
    for variant, reason in (("maybe_broken", "the scale of layer 7 is lost"), ("maybe_killed", "killed by signal 9")):
        assert not stages(variant) & rules(mended), "it was repeated"
        for stage, kind in (("quantize", QuantizeResult), ("accuracy", AccuracyResult), ("speed", SpeedResult)):
            result = read_outcome(kind, results / stage / f"{variant}.json")
            assert result.outcome == "failed" and reason in result.error.message
    rows = {row.variant: row for row in read(ComparisonReport, results / "comparison_report.json").variants}
    assert rows["maybe_killed"].error.exit_code == 137
    assert "maybe_broken failed in quantize" in (results / "comparison_summary.txt").read_text()


def test_the_next_run_repeats_only_what_failed_and_completes_the_report(mended, project):
    assert rules(mended) == {*stages(*FAILING), "report"}
    results = project.run / "results"
    assert not (results / "partial").exists()
    assert all((results / name).stat().st_size > 0 for name in REPORT_FILES)
    report = read(ComparisonReport, results / "comparison_report.json")
    assert not report.partial
    assert {row.variant for row in report.variants if row.outcome == "ok"} == {*GOOD, *FAILING}


def test_another_run_does_nothing(mended, project):
    process = project.snakemake()
    assert process.returncode == 0
    assert "Nothing to be done" in process.stderr
    assert rules(process) == set()


def test_editing_the_4_bit_format_reruns_exactly_the_4_bit_variants(mended, project):
    with project.edited(
        "vggt_quant/quantization/formats/w4a16.py", 'format = "w4a16"', 'format = "w4a16"\n    revision = 2'
    ):
        assert project.would_run() == {*stages("int4_group128"), "report"}


def test_editing_a_metric_requantizes_nothing(mended, project):
    with project.edited("vggt_quant/evaluation/metrics/depth.py", "def measure(", "def measure_it("):
        assert project.would_run() == {*stages(*VARIANTS, of=("accuracy",)), "report"}


def test_editing_the_report_measures_nothing(mended, project):
    first = "\nfrom pathlib import Path\n"
    with project.edited("vggt_quant/report/collect.py", first, f"{first}\nREVISION = 2\n"):
        assert project.would_run() == {"report"}


def test_editing_a_comment_reruns_nothing(mended, project):
    with project.edited("vggt_quant/quantization/formats/w4a16.py", '"""', '# A remark.\n"""Otherwise put: '):
        assert project.would_run() == set()


def test_adding_a_variant_runs_that_one(mended, project):
    added = "\nint4_group64: {method: round_to_nearest, config: {format: w4a16, group_size: 64}}\n"
    with project.edited("config/variants.yaml", "\nbroken:", f"{added}broken:"):
        assert project.would_run() == {*stages("int4_group64"), "report"}


def test_changing_a_setting_reruns_that_variant(mended, project):
    with project.edited("config/variants.yaml", "group_size: 128", "group_size: 32"):
        assert project.would_run() == {*stages("int4_group128"), "report"}


def test_a_new_photo_requantizes_nothing(mended, project):
    photo = project.add_photo("scenes/tower")
    try:
        measured = stages(*VARIANTS, of=("accuracy", "speed"))
        assert project.would_run() == {"images", "calibration", "reference", *measured, "report"}
    finally:
        photo.unlink()


def test_a_new_photo_to_calibrate_with_measures_nothing(mended, project):
    """No method of these learns from scenes."""
    photo = project.add_photo("others/hall")
    try:
        assert project.would_run() == {"calibration", "report"}
    finally:
        photo.unlink()


def test_without_scenes_to_calibrate_with_the_report_holds_none(mended, project):
    assert project.would_run("--config", "calibration={folder: none}") == {"report"}


def test_every_scene_is_measured_and_held_against_its_truth(mended, project):
    report = read(ComparisonReport, project.run / "results" / "comparison_report.json")
    assert [scene.name for scene in report.images.scenes] == ["court", "tower"]
    assert [scene.name for scene in report.calibration.scenes] == ["hall"]
    assert [scene.scene for scene in report.reference.scenes] == ["court", "tower"]
    rows = {row.variant: row for row in report.variants}
    for variant in GOOD:
        assert [scene.scene for scene in rows[variant].accuracy.scenes] == ["court", "tower"]
        assert all(scene.truth["depth_abs_rel"] > 0 for scene in rows[variant].accuracy.scenes)
        assert rows[variant].truth["depth_abs_rel"].num_scenes == 2
        assert rows[variant].speed.shape == report.images.scenes[0].shape
    assert rows["int4_group128"].truth["depth_abs_rel"].within_noise is None, "two scenes are too few for a verdict"


def test_results_inside_the_folder_of_photos_are_no_photos(mended, project):
    """Somebody will run it where the photos are; the report's own picture must not make the next run repeat itself."""
    plan = ["--dry-run", "--config", f"images={{folder: {project.root}}}"]
    before = hashes(project.snakemake(*plan), "images")
    (project.run / "results" / "another_picture.png").touch()
    assert len(before) == 2, "that of the photos alone, and that of the whole folder"
    assert hashes(project.snakemake(*plan), "images") == before


def test_a_deleted_result_is_made_anew(mended, project):
    result = project.run / "results" / "speed" / "fp32.json"
    kept = result.rename(result.with_suffix(".kept"))
    try:
        assert project.would_run() == {"speed_fp32", "report"}
    finally:
        kept.rename(result)


def test_one_variant_can_be_asked_for_by_its_rule_and_comes_from_the_cache(mended, project):
    """Without its results, but with the cache, nothing is quantized anew."""
    checkpoints = project.run / "cache" / "checkpoints"
    before = {path.name: path.stat().st_mtime_ns for path in checkpoints.iterdir()}
    process = project.snakemake("--config", "results_dir=elsewhere", "--", "quantize_int8_symmetric")
    assert process.returncode == 0, process.stderr
    assert rules(process) == {"model", "quantize_int8_symmetric"}
    result = read(QuantizeResult, project.run / "elsewhere" / "quantize" / "int8_symmetric.json")
    assert result.cached is True
    assert {path.name: path.stat().st_mtime_ns for path in checkpoints.iterdir()} == before
    assert read(QuantizeResult, project.run / "results" / "quantize" / "int8_symmetric.json").cached is False


def test_each_variant_has_its_own_rules_with_gpu_log_and_benchmark(mended, project, tmp_path):
    plan = described(
        project.snakemake(
            *("--dry-run", "--forceall", "--config", "device=cuda"), PATH=install_driver(tmp_path / "bin")
        )
    )
    assert stages(*VARIANTS) <= set(plan)
    for rule in stages(*VARIANTS):
        assert "gpu=1" in plan[rule]
        assert f"log: results/logs/{rule}.log, results/logs/{rule}.status.json" in plan[rule]
        assert f"benchmark: results/benchmarks/{rule}.jsonl" in plan[rule]
    for variant in VARIANTS:
        assert "timing=1" in plan[f"speed_{variant}"] and "threads: 2" in plan[f"speed_{variant}"]
        assert "timing" not in plan[f"accuracy_{variant}"] and "threads" not in plan[f"accuracy_{variant}"]
    benchmarks = [json.loads(p.read_text()) for p in (project.run / "results" / "benchmarks").glob("speed_*")]
    assert len(benchmarks) == len(VARIANTS) and all(entry["s"] > 0 for entry in benchmarks)


def test_without_a_number_of_cores_the_plan_can_still_be_read(mended, project):
    command = [word for word in project.command("--summary") if word not in ("--cores", "2")]
    process = subprocess.run(command, cwd=project.run, env=project.environment(), capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "speed/int4_group128.json" in process.stdout


def test_results_made_in_another_working_directory_are_not_believed(project, mended, tmp_path):
    """Snakemake knows what its files depend on by records in the working directory; without them all looks done."""
    shutil.copytree(project.run / "results", tmp_path / "results")
    elsewhere = project.snakemake("--dry-run", "--directory", str(tmp_path))
    assert elsewhere.returncode == 1
    sentence = f"{tmp_path / 'results'} holds results that were not made from this working directory"
    assert sentence in said(elsewhere)
    assert "older version" not in said(elsewhere)
