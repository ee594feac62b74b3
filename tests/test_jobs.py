"""Jobs: how the work ended is on record, whatever ended it. Real processes, real signals, a real memory limit."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import COMMAND, has_ended, worker_of

from vggt_quant.results.schema import ModelResult, Status, read
from vggt_quant.runtime import jobs, memory


def start(*words):
    environment = {name: value for name, value in os.environ.items() if name != jobs.WORKER}
    return subprocess.Popen([*COMMAND, *map(str, words)], stderr=subprocess.PIPE, text=True, env=environment)


def raising(exception):
    def action():
        raise exception

    return action


def test_work_that_succeeds_leaves_its_status(tmp_path):
    assert jobs.work("quantize", "bf16", tmp_path / "s.json", lambda: None) == 0
    status = read(Status, tmp_path / "s.json")
    assert (status.stage, status.variant, status.outcome, status.error) == ("quantize", "bf16", "ok", None)
    assert status.seconds >= 0 and status.created and status.command[0] == "vggt-quant"


@pytest.mark.parametrize("mistake", [ValueError("group_size is 7"), FileNotFoundError(2, "gone", "photos")])
def test_a_mistake_of_the_users_is_one_sentence_and_exit_code_2(tmp_path, capsys, mistake):
    assert jobs.work("quantize", "bf16", tmp_path / "s.json", raising(mistake)) == 2
    assert capsys.readouterr().err == f"vggt-quant: quantize bf16: {mistake}\n"
    error = read(Status, tmp_path / "s.json").error
    assert (error.kind, error.exit_code, error.message) == ("input", 2, str(mistake))
    assert "Traceback" in error.traceback and "test_jobs.py" in error.traceback


def test_anything_else_keeps_its_traceback_in_log_and_status(tmp_path, capsys):
    assert jobs.work("speed", None, tmp_path / "s.json", raising(KeyError("pose_enc"))) == 1
    log = capsys.readouterr().err
    error = read(Status, tmp_path / "s.json").error
    assert log.startswith("vggt-quant: speed: KeyError: 'pose_enc'\nTraceback")
    assert (error.kind, error.exit_code) == ("exception", 1)
    assert error.traceback in log


@pytest.mark.parametrize(
    "lack",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
    ids=["python", "system", "torch", "cuda"],
)
def test_want_of_memory_is_called_so_whoever_reports_it(tmp_path, lack):
    assert jobs.work("quantize", "bf16", tmp_path / "s.json", raising(lack), limit_mb=90) == 1
    error = read(Status, tmp_path / "s.json").error
    assert error.kind == "out_of_memory"
    assert error.message.startswith("needs more memory than its limit of 90 MB (")


def test_what_onednn_says_is_want_of_memory_where_memory_is_limited():
    error = RuntimeError("could not create a primitive")
    assert jobs.describe_error("speed", error).kind == "exception"
    assert jobs.describe_error("speed", error, limit_mb=90).kind == "out_of_memory"
    with memory.memory_limit(100_000):
        assert jobs.describe_error("speed", error).kind == "out_of_memory"


def test_an_error_that_follows_from_want_of_memory_does_not_hide_it():
    try:
        try:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        finally:
            raise RuntimeError("the capture of a graph failed")
    except RuntimeError as exception:
        error = jobs.describe_error("speed", exception)
    assert error.kind == "out_of_memory" and "Tried to allocate 2.00 GiB" in error.message
    assert jobs.describe_error("speed", RuntimeError("the capture of a graph failed")).kind == "exception"


def test_a_child_ends_with_its_exit_code_or_minus_its_signal():
    python = [sys.executable, "-c"]
    assert jobs.run_child([*python, "raise SystemExit(7)"]) == 7
    assert jobs.run_child([*python, "import os; os.kill(os.getpid(), 9)"]) == -9


def test_ctrl_c_lets_the_child_put_its_things_in_order(tmp_path):
    """The terminal tells parent and child; a parent that left at once would leave the child's lock behind."""
    child = "import time, pathlib\ntry: time.sleep(60)\nfinally: time.sleep(1); pathlib.Path('tidy').touch()"
    parent = f"import sys; from vggt_quant.runtime.jobs import run_child; run_child([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL
    )
    worker_of(process)
    time.sleep(0.5)  # until the child has reached its `try`
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=30)
    assert (tmp_path / "tidy").exists()


def test_a_job_that_was_interrupted_says_so_whatever_its_worker_makes_of_it(tmp_path):
    """A library that swallows a Ctrl-C, or turns it into exit code 1, must not let the next job start."""
    calm = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import time; time.sleep(2)"
    parent = (
        "import sys; from pathlib import Path; from vggt_quant.runtime import jobs\n"
        f"jobs.sys.executable = {str(tmp_path / 'python')!r}\n"
        "sys.exit(jobs.supervise('speed', 'bf16', Path('s.json'), [], needs_gpu=False)[0])"
    )
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{calm}\n")
    (tmp_path / "python").chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, start_new_session=True)
    time.sleep(1.2)  # until the worker is calm
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 128 + signal.SIGINT
    assert read(Status, tmp_path / "s.json").error.message == "killed by signal 2 (SIGINT)"


def test_a_supervised_job_writes_result_and_status(tmp_path):
    job = start("model", "--model", "nano-random", "--result", tmp_path / "model.json", "--status", tmp_path / "s.json")
    job.communicate()
    assert job.returncode == 0
    assert read(ModelResult, tmp_path / "model.json").random_weights
    assert read(Status, tmp_path / "s.json").outcome == "ok"


def test_a_supervised_mistake_is_one_sentence_with_its_traceback_on_record(tmp_path):
    job = start(
        "model", "--model", tmp_path / "no.safetensors", "--result", tmp_path / "m.json", "--status", tmp_path / "s"
    )
    _, log = job.communicate()
    assert job.returncode == 2
    assert log.count("\n") == 1 and log.startswith("vggt-quant: model: ") and "no.safetensors" in log
    assert "Traceback" in read(Status, tmp_path / "s").error.traceback
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_that_ends_the_worker_is_on_record(tmp_path, number):
    job = start("model", "--model", "nano-random", "--result", tmp_path / "m.json", "--status", tmp_path / "s")
    os.kill(worker_of(job), number)
    _, log = job.communicate()
    assert job.returncode == 128 + number
    error = read(Status, tmp_path / "s").error
    assert (error.kind, error.exit_code) == ("signal", 128 + number)
    assert f"killed by signal {number:d} ({number.name})" in error.message
    assert error.message in log
    assert not (tmp_path / "m.json").exists()


def test_a_sigterm_to_the_parent_ends_the_worker_and_is_on_record(tmp_path):
    job = start("model", "--model", "nano-random", "--result", tmp_path / "m.json", "--status", tmp_path / "s")
    worker = worker_of(job)
    time.sleep(0.2)  # until the parent listens
    job.terminate()
    job.communicate()
    assert job.returncode == 128 + signal.SIGTERM
    assert has_ended(worker)
    assert read(Status, tmp_path / "s").error.message == "killed by signal 15 (SIGTERM)"


@pytest.mark.timeout(60)
def test_a_job_that_reaches_its_memory_limit_ends_and_says_so(tmp_path):
    """10 MB are less than any import takes, so the first thing the work asks for is refused.

    The timeout counts, too: with the limit around the imports, OpenBLAS waited for ever.
    """
    words = ["quantize", "--model", "nano-random", "--variant", "int8_symmetric", "--device", "cpu"]
    job = start(
        *words,
        "--memory-limit-mb",
        10,
        "--cache",
        tmp_path,
        "--result",
        tmp_path / "q.json",
        "--status",
        tmp_path / "s",
    )
    job.communicate()
    assert job.returncode == 1
    error = read(Status, tmp_path / "s").error
    assert error.kind == "out_of_memory"
    assert "its limit of 10 MB" in error.message
    assert not (tmp_path / "q.json").exists()


def test_a_device_that_is_not_there_is_a_recorded_mistake(tmp_path):
    words = ["reference", "--model", "nano-random", "--device", "cuda", "--status", tmp_path / "s"]
    words += ["--cache", tmp_path]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    job = subprocess.run([*COMMAND, *map(str, words)], env=environment, capture_output=True, text=True)
    assert job.returncode == 2
    assert "nvidia-smi finds no GPU" in job.stderr and "Traceback" not in job.stderr
    assert read(Status, tmp_path / "s").error.kind == "input"
