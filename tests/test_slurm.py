"""The workflow on a real Slurm of one node: a variant fails alone, and the next call repeats only that one."""

import subprocess
from types import SimpleNamespace

import cluster_tools
import pytest
import slurm_node
import yaml
from workflow_project import Project, rules, said

from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import read

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]  # Slurm is asked every ten seconds or so

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


def own_profile(folder):
    """A folder as people with a cluster write it: the package's profile, and what their cluster needs."""
    settings = yaml.safe_load((folder / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    settings |= {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 2, "slurm-no-account": True}
    settings["default-resources"] = {"mem_mb": 1500, "runtime": 5, "slurm_partition": "gpu"}
    (folder / "mine").mkdir()
    (folder / "mine" / "config.yaml").write_text(yaml.safe_dump(settings))


def compare(project, profile, *more):
    words = ["--model", "nano-random", "--images", str(project.scenes), "--variants", "bf16"]
    return subprocess.run(
        [cluster_tools.PYTHON, "-P", "-m", "vggt_quant", "compare", *words, "--workflow-profile", profile, *more],
        **{"cwd": project.root, "env": project.environment(OMP_NUM_THREADS="1"), "capture_output": True, "text": True},
    )


def compare_by_slurm(project):
    """A comparison of this machine, one of whose results is made anew: Slurm's part takes seconds a job."""
    own_profile(project.root)
    words = ["--device", "cpu", "--output", "out"]
    here = compare(project, "default", *words)
    assert here.returncode == 0, said(here)
    (project.root / "out" / "speed" / "bf16.json").unlink()
    return compare(project, "mine", *words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a method that fails, the next call after it was mended, and `compare` by the same engine."""
    if reason := slurm_node.missing() or cluster_tools.missing("snakemake_executor_plugin_slurm"):
        pytest.skip(reason)
    variants = {**GOOD, "broken": {"method": "raises"}}
    project = Project(tmp_path_factory.mktemp("project"), variants, device="cpu", calibration={"folder": "none"})
    method = project.root / "vggt_quant" / "quantization" / "methods" / "raises.py"
    sound = (project.root / "vggt_quant" / "quantization" / "methods" / "cast.py").read_text()
    method.write_text(sound + BROKEN)
    partial = project.run / "results" / "partial" / "comparison_report.json"
    with slurm_node.slurm_node(tmp_path_factory.mktemp("slurm")) as node:
        first = run_on_slurm(project)
        assert partial.exists(), said(first)
        report, jobs = read(ComparisonReport, partial), node.jobs()
        method.write_text(sound)
        second = run_on_slurm(project)
        all_jobs, ended = node.jobs(), node.completed()
        compared = compare_by_slurm(project)
        ended_of_compare = node.completed()[len(ended) :]
        yield SimpleNamespace(
            **{"first": first, "report": report, "jobs": jobs, "second": second, "all_jobs": all_jobs, "ended": ended},
            **{"results": project.run / "results", "project": project},
            **{"compared": compared, "ended_of_compare": ended_of_compare},
        )


def test_on_slurm_a_failing_variant_fails_alone_and_is_in_the_partial_report(runs):
    assert runs.first.returncode == 1
    assert rules(runs.first) == FIRST
    rows = {row.variant: row for row in runs.report.variants}
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


def test_compare_hands_its_jobs_to_slurm_by_a_profile_of_ones_own(runs):
    assert runs.compared.returncode == 0, said(runs.compared)
    assert rules(runs.compared) == {"speed_bf16", "report"}
    assert len(runs.ended_of_compare) == 2
    (row,) = read(ComparisonReport, runs.project.root / "out" / "comparison_report.json").variants
    assert (row.variant, row.outcome) == ("bf16", "ok")


def test_on_a_cluster_the_device_is_said_and_not_looked_for(runs):
    """The login node's own device says nothing; one that is said needs no GPU there."""
    guessed = compare(runs.project, "mine", "--output", "guessed")
    assert guessed.returncode == 1
    assert "nobody here knows what they have: set device to cuda or cpu" in said(guessed)
    assert compare(runs.project, "mine", "--output", "said", "--device", "cuda", "--dry-run").returncode == 0
