"""GPU leases between real processes, on a machine whose `nvidia-smi` is a stand-in on PATH."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import COMMAND, environment_of, install_driver, worker_of

from vggt_quant.runtime import gpus

HOLD = """
import sys, time
from pathlib import Path
from vggt_quant.runtime.gpus import lease
with lease(Path(sys.argv[1])) as gpu:
    print(gpu, flush=True)
    sys.stdin.read()
"""

CHILD = """
import os, time
print(os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""

SUPERVISE = f"""
import os, sys
from vggt_quant.runtime import gpus, jobs
with gpus.lease() as gpu:
    jobs.run_child([sys.executable, "-c", {CHILD!r}], {{**os.environ, "CUDA_VISIBLE_DEVICES": gpu}})
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine with two GPUs, as far as its driver's tool says, and nobody else's locks."""
    monkeypatch.setenv("PATH", install_driver(tmp_path / "bin"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the default folder of the locks lies there
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def start():
    """Start processes that run some code, or `vggt-quant`; none of them survives the test."""
    started = []

    def start(code, *words):
        command = [*([sys.executable, "-c", code] if code else COMMAND), *map(str, words)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        os.set_blocking(process.stdout.fileno(), False)
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stdin.close()


@pytest.fixture
def holder(start, tmp_path):
    """Start processes that lease a GPU each and hold it until their stdin closes."""
    return lambda: start(HOLD, tmp_path / "locks")


def leased(process, seconds=10.0):
    """The GPU that a process got within so many seconds, or None."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if line := process.stdout.read():
            return line.decode().strip()
        time.sleep(0.05)
    return None


def test_two_jobs_get_two_gpus_and_a_third_waits_for_one(two_gpus, holder):
    first, second = holder(), holder()
    assert {leased(first), leased(second)} == {"0", "1"}
    third = holder()
    assert leased(third, seconds=1.5) is None
    second.stdin.close()
    assert leased(third) in ("0", "1")


def test_a_killed_holder_frees_its_gpu(two_gpus, holder):
    first, second = holder(), holder()
    held = {leased(first): first, leased(second): second}
    third = holder()
    held["1"].kill()
    assert leased(third) == "1"


def test_a_gpu_in_use_stays_leased_when_the_parent_of_the_job_is_killed(two_gpus, start, monkeypatch):
    """Else a second job would share the GPU with the orphan, and both would be timed wrongly."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    parent = start(SUPERVISE)
    orphan, gpu = leased(parent).split()
    assert gpu == "1"
    parent.kill()
    parent.wait()
    following = start(SUPERVISE)
    assert leased(following, seconds=1.5) is None
    os.kill(int(orphan), signal.SIGKILL)
    assert leased(following).split()[1] == "1"


def test_two_supervised_jobs_start_with_one_gpu_each_in_their_environment(two_gpus, start, tmp_path):
    """In the environment from the start, so before torch is imported."""
    words = ["reference", "--model", "nano-random", "--device", "cuda", "--cache", tmp_path]
    jobs = [start(None, *words, "--status", tmp_path / f"{number}.json") for number in (1, 2)]
    assert {environment_of(worker_of(job))["CUDA_VISIBLE_DEVICES"] for job in jobs} == {"0", "1"}


def test_only_the_visible_gpus_are_leased(two_gpus, monkeypatch, tmp_path):
    assert gpus.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.visible_gpus() == ["1"]
    assert gpus.gpu_names() == ["Second GPU"]
    with gpus.lease(tmp_path) as gpu:
        assert gpu == "1"


def test_without_a_gpu_the_cure_is_named(two_gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="--device cpu"), gpus.lease(tmp_path):
        pass


def test_a_machine_without_the_driver_has_no_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == []
    assert not list(Path(tmp_path).iterdir())
