"""The workflow with its results on S3: an empty working directory finds them there and computes nothing anew."""

from types import SimpleNamespace

import cluster_tools
import pytest
from workflow_project import Project, rules, said

pytestmark = pytest.mark.workflow

BUCKET = "volume"
# The plugin deletes a bucket that it emptied; an object that nobody else writes keeps it.
KEEP = "keep/this-object-keeps-the-bucket"


def run_on_s3(project, folder, environment):
    folder.mkdir()
    words = [
        "--cores",
        "2",
        "--default-storage-provider",
        "s3",
        "--default-storage-prefix",
        f"s3://{BUCKET}/runs/first",
    ]
    return cluster_tools.snakemake(project, *words, cwd=folder, **environment)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run in one empty folder, the same run in another one."""
    if reason := cluster_tools.missing("snakemake_storage_plugin_s3", "moto", "flask_cors"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("s3")
    project = Project(folder, {"fp32": {"method": "cast", "dtype": "float32"}}, device="cpu")
    with cluster_tools.s3_server() as environment:
        cluster_tools.put(environment, BUCKET, KEEP, "")
        first = run_on_s3(project, folder / "here", environment)
        stored = cluster_tools.objects(environment, BUCKET)
        second = run_on_s3(project, folder / "elsewhere", environment)
        after = cluster_tools.objects(environment, BUCKET)
    return SimpleNamespace(first=first, second=second, stored=stored, after=after, folder=folder)


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
