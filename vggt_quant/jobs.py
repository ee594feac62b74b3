"""One job, one status file: a parent without torch runs the work in a fresh process and records how it ended.

The status is written whatever happens: the worker writes its own exception with the whole traceback; when a signal or
a memory limit ends it without a word, the parent writes that. Exit codes: 0 done (also "unsupported", a result with its
reason), 2 a mistake of the user's (one sentence), 1 any other failure, 128 + n killed by signal n.
"""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from vggt_quant import gpus, machine
from vggt_quant.results import Error, Status, read, write

WORKER = "VGGT_QUANT_WORKER"
"""Set in the environment of a worker, so that it does the work instead of starting another worker."""

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "not enough memory", "out of memory", "can't allocate memory")


def supervise(
    stage: str, variant: str | None, status: Path, words: list[str], *, needs_gpu: bool
) -> tuple[int, Error | None]:
    """Run the command `words` again in a fresh process, on a leased GPU if it wants one, and record how it ended.

    Returns:
        The exit code for this process, and the error if there was one.
    """
    started = time.perf_counter()
    status.parent.mkdir(parents=True, exist_ok=True)
    status.unlink(missing_ok=True)
    with gpus.lease() if needs_gpu else nullcontext() as gpu:
        environment = {**os.environ, WORKER: "1", **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}
        code = subprocess.run([sys.executable, "-m", "vggt_quant", *words], env=environment).returncode
    if code < 0:
        error, code = _killed(stage, -code), 128 - code
    else:
        error = (_reported(status) or _silent(stage, code)) if code else None
    _write_status(stage, variant, status, error, time.perf_counter() - started)
    return code, error


def work(stage: str, variant: str | None, status: Path | None, action: Callable[[], int | None]) -> int:
    """Do the work in this process; an exception becomes a status and an exit code, and one sentence on stderr."""
    started = time.perf_counter()
    try:
        error, code = None, action() or 0
    except (ValueError, OSError) as exception:
        code = 2
        error = describe_error(stage, exception, kind="input", exit_code=code)
    except Exception as exception:  # noqa: BLE001 (the border: whatever it is goes, whole, into the status file)
        code = 1
        error = describe_error(stage, exception, kind="exception", exit_code=code)
    if error:
        who = f"{stage} {variant}" if variant else stage
        print(f"vggt-quant: {who}: {error.message}", file=sys.stderr)
        if code != 2:
            print(error.traceback, file=sys.stderr)
    if status:
        _write_status(stage, variant, status, error, time.perf_counter() - started)
    return code


def describe_error(stage: str, exception: BaseException, *, kind: str, exit_code: int) -> Error:
    """What happened in one sentence, and the whole traceback."""
    text = f"{type(exception).__name__}: {exception}"
    if kind == "exception" and any(words in text for words in OUT_OF_MEMORY):
        kind = "out_of_memory"
    message = str(exception) if kind == "input" else text
    trace = "".join(traceback.format_exception(exception))
    return Error(stage=stage, kind=kind, message=message, traceback=trace, exit_code=exit_code)


def _killed(stage: str, number: int) -> Error:
    name = signal.Signals(number).name
    message = f"killed by signal {number} ({name})" + ("; out of memory?" if name == "SIGKILL" else "")
    return Error(stage=stage, kind="signal", message=message, traceback=None, exit_code=128 + number)


def _reported(status: Path) -> Error | None:
    return read(Status, status).error if status.is_file() else None


def _silent(stage: str, code: int) -> Error:
    message = f"ended with exit code {code} without a word"
    return Error(stage=stage, kind="exception", message=message, traceback=None, exit_code=code)


def _write_status(stage: str, variant: str | None, path: Path, error: Error | None, seconds: float) -> None:
    status = Status(
        stage=stage,
        variant=variant,
        outcome="failed" if error else "ok",
        error=error,
        seconds=seconds,
        command=["vggt-quant", *sys.argv[1:]],
        created=machine.now(),
    )
    write(status, path)
