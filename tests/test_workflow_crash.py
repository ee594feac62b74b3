"""After a run that was killed outright: the next one says what to do, and then goes on."""

import os
import signal
import subprocess
import time

import pytest
from workflow_project import Project, rules

from vggt_quant.results.schema import QuantizeResult, read

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"), {"fp32": {"method": "cast", "dtype": "float32"}})


def test_after_a_crash_the_next_run_says_what_to_do_and_then_goes_on(project, tmp_path):
    words = ["--directory", str(tmp_path), "--", "quantize_fp32"]
    running = subprocess.Popen(
        project.command(*words), env=project.environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "results" / "logs" / "model.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    refused = project.snakemake(*words)
    assert refused.returncode == 1 and "can be removed with the --unlock argument" in refused.stderr
    assert project.snakemake("--directory", str(tmp_path), "--unlock").returncode == 0
    repeated = project.snakemake(*words)
    assert repeated.returncode == 0, repeated.stderr
    assert rules(repeated) == {"model", "quantize_fp32"}
    assert read(QuantizeResult, tmp_path / "results" / "quantize" / "fp32.json").outcome == "ok"
