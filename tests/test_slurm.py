"""The workflow on a real Slurm of one node: a variant fails alone, and the next call repeats only that one."""

from types import SimpleNamespace

import cluster_tools
import pytest
import slurm_node
from workflow_project import Project, rules, said

from vggt_quant.results import ComparisonReport, read

pytestmark = pytest.mark.workflow

GOOD = {
    "bf16": {"method": "cast", "dtype": "bfloat16"},
    "int8_symmetric": {"method": "round_to_nearest", "config": {"format": "w8a16"}},
}
STAGES = ("quantize", "accuracy", "speed")
FIRST = {"model", "images", "reference", "quantize_broken"} | {f"{stage}_{v}" for stage in STAGES for v in GOOD}
SECOND = {f"{stage}_broken" for stage in STAGES} | {"report"}
BROKEN = '    raise RuntimeError("the scale of layer 7 is lost")\n'


def run_on_slurm(project):
    return cluster_tools.snakemake(
        project,
        *cluster_tools.profile(project, "slurm"),
        # This machine is small and answers fast; a cluster keeps the profile's own numbers.
        *("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2", "--slurm-no-account"),
        *("--default-resources", "mem_mb=1500", "runtime=5", "slurm_partition=gpu"),
        # As with device=cuda, where each of them asks for a GPU by itself.
        *("--set-resources", *(f"quantize_{variant}:gpu=1" for variant in (*GOOD, "broken"))),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a method that fails, and the next call after it was mended."""
    if reason := slurm_node.missing() or cluster_tools.missing("snakemake_executor_plugin_slurm"):
        pytest.skip(reason)
    variants = {**GOOD, "broken": {"method": "raises"}}
    project = Project(tmp_path_factory.mktemp("project"), variants, device="cpu", calibration={"folder": "none"})
    method = project.root / "vggt_quant" / "methods" / "raises.py"
    sound = (project.root / "vggt_quant" / "methods" / "cast.py").read_text()
    method.write_text(sound.replace("    return {}\n", BROKEN))
    partial = project.run / "results" / "partial" / "comparison_report.json"
    with slurm_node.slurm_node(tmp_path_factory.mktemp("slurm")) as node:
        first = run_on_slurm(project)
        assert partial.exists(), said(first)
        report, jobs = read(ComparisonReport, partial), node.jobs()
        method.write_text(sound)
        second = run_on_slurm(project)
        yield SimpleNamespace(
            **{"first": first, "report": report, "jobs": jobs, "second": second},
            **{"all_jobs": node.jobs(), "ended": node.completed(), "results": project.run / "results"},
        )


def test_on_slurm_a_failing_variant_fails_alone_and_is_in_the_partial_report(runs):
    assert runs.first.returncode == 1
    assert rules(runs.first) == FIRST
    rows = {row.variant: row for row in runs.report.methods}
    assert runs.report.partial
    assert {name: row.outcome for name, row in rows.items()} == {**dict.fromkeys(GOOD, "ok"), "broken": "failed"}
    assert rows["broken"].error.message == "RuntimeError: the scale of layer 7 is lost"


def test_every_job_is_a_slurm_job_of_its_own(runs):
    assert set(runs.jobs) == FIRST
    assert {rule for rule, job in runs.jobs.items() if job["JobState"] == "FAILED"} == {"quantize_broken"}
    assert len({job["JobId"] for job in runs.jobs.values()}) == len(FIRST)


def test_a_job_that_asks_for_a_gpu_asks_slurm_for_it(runs):
    wants_gpu = {rule for rule, job in runs.jobs.items() if "gpu" in job.get("TresPerJob", "")}
    assert wants_gpu == {f"quantize_{variant}" for variant in (*GOOD, "broken")}


def test_after_the_cause_is_mended_slurm_gets_only_the_jobs_of_that_variant(runs):
    """By Snakemake's own count, by what the controller knows, and by the log of the jobs that ended."""
    assert runs.second.returncode == 0, said(runs.second)
    assert rules(runs.second) == SECOND
    again = {rule for rule, job in runs.all_jobs.items() if runs.jobs.get(rule, {}).get("JobId") != job["JobId"]}
    assert again == SECOND
    assert len(runs.ended) == len(FIRST) + len(SECOND)
    assert not read(ComparisonReport, runs.results / "comparison_report.json").partial
