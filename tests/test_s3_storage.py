"""The workflow with its results on S3: an empty working directory finds them there and computes nothing anew."""

from types import SimpleNamespace

import cluster_tools
import pytest
from workflow_project import Project, rules, said

pytestmark = pytest.mark.workflow

BUCKET = "volume"
# The plugin deletes a bucket that it emptied; an object that nobody else writes keeps it.
KEEP = "keep/this-object-keeps-the-bucket"


def run_on_s3(project, folder, environment, *more):
    folder.mkdir(exist_ok=True)
    storage = ["--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/runs/first"]
    return cluster_tools.snakemake(project, "--cores", "2", *storage, *more, cwd=folder, **environment)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run in one empty folder, the same run in another one, and there one step again without and with the cache."""
    if reason := cluster_tools.missing("snakemake_storage_plugin_s3", "moto", "flask_cors"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("s3")
    volume = folder / "volume"
    project = Project(folder, {"fp32": {"method": "cast", "dtype": "float32"}}, device="cpu", cache_dir=str(volume))
    again = ["--forcerun", "accuracy_fp32", "--", "accuracy_fp32"]
    with cluster_tools.s3_server() as environment:
        cluster_tools.put(environment, BUCKET, KEEP, "")
        first = run_on_s3(project, folder / "here", environment)
        stored = cluster_tools.objects(environment, BUCKET)
        second = run_on_s3(project, folder / "elsewhere", environment)
        after = cluster_tools.objects(environment, BUCKET)
        volume.rename(folder / "lost")
        without = run_on_s3(project, folder / "elsewhere", environment, *again)
        (log,) = folder.glob("elsewhere/.snakemake/storage/**/logs/accuracy_fp32.log")
        why = log.read_text()
        (folder / "lost").rename(volume)
        with_cache = run_on_s3(project, folder / "elsewhere", environment, *again)
        cluster_tools.delete(environment, BUCKET, "runs/first/results/quantize/fp32.json")
        planned = run_on_s3(project, folder / "elsewhere", environment, "--dry-run")
    return SimpleNamespace(
        **{
            "first": first,
            "second": second,
            "without": without,
            "why": why,
            "with_cache": with_cache,
            "planned": planned,
        },
        **{"stored": stored, "after": after, "folder": folder, "volume": volume},
    )


def test_a_run_leaves_results_tensors_logs_and_report_on_s3(runs):
    assert runs.first.returncode == 0, said(runs.first)
    names = {name.removeprefix("runs/first/results/") for name in runs.stored}
    results = {f"{stage}/fp32.json" for stage in ("quantize", "accuracy", "speed")}
    report = {f"comparison_{name}" for name in ("report.json", "summary.txt", "plots.png")}
    assert {"model.json", "images.json", "calibration.json", "reference.json", *results, *report} <= names
    assert {"images_prepared/court.safetensors", "logs/quantize_fp32.status.json"} <= names
    assert KEEP in runs.stored
    assert not (runs.folder / "here" / "results" / "model.json").exists(), "it lies on S3 only"


def test_a_run_in_an_empty_folder_recomputes_nothing(runs):
    assert runs.second.returncode == 0, said(runs.second)
    assert rules(runs.second) == set()
    assert "Nothing to be done" in said(runs.second)
    assert runs.after == runs.stored


def test_checkpoints_and_fp32_outputs_lie_in_the_cache_and_never_on_s3(runs):
    """On S3 are the photos' tensors; what is in the cache, by kind, is not."""
    kinds = {file.parent.name for file in runs.volume.rglob("*.safetensors")}
    assert kinds == {"checkpoints", "reference"}
    tensors = {name for name in runs.stored if name.endswith(".safetensors")}
    assert tensors
    assert all("/images_prepared/" in name or "/calibration_prepared/" in name for name in tensors)


def test_a_step_that_needs_a_lost_cache_says_which_file_is_gone(runs):
    assert runs.without.returncode == 1
    assert f"The cached file {runs.volume}/" in runs.why
    assert "is missing; delete " in runs.why


def test_with_the_volume_of_the_cache_that_step_runs_anywhere(runs):
    assert runs.with_cache.returncode == 0, said(runs.with_cache)
    assert rules(runs.with_cache) == {"accuracy_fp32"}


def test_a_result_that_was_deleted_in_the_bucket_is_made_anew_with_its_checkpoint(runs):
    assert rules(runs.planned) == {"quantize_fp32", "accuracy_fp32", "speed_fp32", "report"}
