"""`vggt-quant compare` as it comes from `pip install`, run far from any checkout."""

import errno
import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from processes import install_driver
from workflow_project import ROOT

from vggt_quant.cli import _profile
from vggt_quant.cli import compare as compare_command
from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import QuantizeResult, read
from vggt_quant.runtime import locks

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, installed beside torch and the rest, and the environment that finds it."""
    target = tmp_path_factory.mktemp("installed")
    # pip fetches the build backend, unless it is here already.
    backend = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *backend, "--target", target, ROOT]
    subprocess.run([*command], check=True)
    return target


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, far from the checkout."""
    place = tmp_path_factory.mktemp("place")
    (place / "photos").mkdir()
    for index in range(3):
        Image.effect_noise((56, 42), 40 + 20 * index).convert("RGB").save(place / "photos" / f"photo_{index}.png")
    return place


def words(installed, *more, methods="fp32,int8_symmetric"):
    settings = ["--model", "nano-random", "--images", "photos", "--max-images", "2", "--device", "cpu"]
    return [str(installed / "bin" / "vggt-quant"), "compare", *settings, "--variants", methods, *more]


def start(installed, place, *more, **settings):
    return subprocess.Popen(
        words(installed, *more, **settings),
        **{"cwd": place, "env": {**os.environ, "PYTHONPATH": str(installed)}, "text": True, "start_new_session": True},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )


def compare(installed, place, *more, **settings):
    process = start(installed, place, *more, **settings)
    process.stdout, process.stderr = process.communicate()
    return process


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def complete(installed, place):
    """A comparison that was killed in the middle and started again."""
    out = place / "out"
    first = start(installed, place, "--output", "out")
    wait_for(out / "logs" / "images.log", first)  # begun when `model` was on record
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    beside = compare(installed, place, "--output", "out")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    return beside, compare(installed, place, "--output", "out")


def test_a_machine_with_two_gpus_may_run_two_gpu_jobs_but_one_timing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", install_driver(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    command = compare_command.snakemake(tmp_path / "config.yaml", tmp_path, _profile.find_profile("default"))
    after = command.index("--resources")
    assert command[after + 1 : after + 3] == ["gpu=2", "timing=1"]


def test_a_dry_run_says_what_would_run_and_runs_nothing(installed, place):
    process = compare(installed, place, "--output", "dry", "--dry-run")
    assert process.returncode == 0
    assert "quantize_int8_symmetric" in process.stdout + process.stderr
    assert "Everything is in" not in process.stdout
    assert not (place / "dry" / "model.json").exists()


def test_a_volume_without_locks_is_good_enough_and_that_is_said(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locks.sole_run(tmp_path):
        pass
    assert caplog.messages == [f"{tmp_path} does not support file locks; make sure that no other run uses it."]


def test_two_comparisons_do_not_write_into_one_folder(complete, place):
    """Snakemake is still at work there, though `compare` itself was killed."""
    beside, _ = complete
    assert beside.returncode == 2
    cure = "wait for its end, or choose another --output"
    assert beside.stderr.endswith(f"Another run, or a job of a killed one, is at work in {place / 'out'}: {cure}.\n")


def test_after_a_crash_the_same_command_goes_on(complete):
    _, process = complete
    assert process.returncode == 0, process.stderr
    assert "The last run was killed; this one goes on from where it was." in process.stderr
    assert "rule model:" not in process.stderr, "what was done is not done again"


def test_a_comparison_leaves_report_summary_picture_and_checkpoints(complete, place, installed):
    _, process = complete
    out = place / "out"
    assert "_workflow/profiles/default" in process.stderr, "the package's own copy of the workflow"
    report = read(ComparisonReport, out / "comparison_report.json")
    assert [row.variant for row in report.variants] == ["fp32", "int8_symmetric"]
    assert all(row.outcome == "ok" for row in report.variants)
    (scene,) = report.images.scenes
    assert scene.paths == [str(place / "photos" / f"photo_{index}.png") for index in range(2)]
    assert (out / "comparison_plots.png").read_bytes().startswith(b"\x89PNG")
    packed = read(QuantizeResult, out / "quantize" / "int8_symmetric.json")
    assert packed.checkpoint.startswith(str(out / "cache"))


def test_a_comparison_ends_with_its_summary_and_where_it_is(complete, place):
    _, process = complete
    summary = (place / "out" / "comparison_summary.txt").read_text()
    assert process.stdout.startswith(summary)
    assert process.stdout.splitlines()[-1].startswith(f"Everything is in {place / 'out'}")
    assert max(map(len, summary.splitlines())) <= 120
    assert "truth" not in summary, "nothing is known of plain photos"


def test_the_same_comparison_again_takes_seconds_and_shows_the_summary(complete, installed, place):
    again = compare(installed, place, "--output", "out")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr
    assert again.stdout == complete[1].stdout


def test_a_comparison_that_fails_says_once_what_there_is_and_how_to_go_on(installed, place):
    (place / "mine.yaml").write_text(
        "hungry: {method: round_to_nearest, config: {format: w8a16}, memory_limit_mb: 60}\n"
    )
    process = compare(installed, place, "--output", "failing", "--variants-file", "mine.yaml", methods="hungry")
    assert process.returncode == 1
    assert process.stdout.count("Failed or unsupported") == 1
    assert re.search(r"hungry failed in quantize: needs more memory than its limit of 60 MB", process.stdout)
    assert process.stderr.splitlines()[-1] == (
        f"The comparison in {place / 'failing'} is not complete; the same command goes on from here."
    )
    assert (place / "failing" / "partial" / "comparison_report.json").is_file()
    assert not (place / "failing" / "comparison_report.json").exists()


def test_results_of_a_workflow_run_elsewhere_are_not_taken_over(installed, place):
    """As after `make run`, whose working directory is the checkout and whose results lie in the default folder, too."""
    (place / "results").mkdir()
    (place / "results" / "model.json").write_text("{}")
    process = compare(installed, place)
    assert process.returncode == 2
    (sentence,) = process.stderr.splitlines()
    assert f"{place / 'results'} holds results that were not made from this working directory" in sentence
    assert "choose another --output" in sentence
