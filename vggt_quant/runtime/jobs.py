"""Run one job in a fresh process and write its status file. The parent imports no torch.

A status is always written. The worker writes its exception with the whole traceback. If a signal or a memory limit ends
the worker without a message, the parent writes the status. Exit codes: 0 done (also "unsupported", a result with its
reason), 2 a user error (one sentence), 1 any other failure, 128 + n killed by signal n.
"""

import errno
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from vggt_quant.results.schema import Error, Status, read, write
from vggt_quant.runtime import gpus, interrupts, memory
from vggt_quant.runtime.provenance import now

Kind = Literal["exception", "input", "out_of_memory"]

WORKER = interrupts.WORKER

OUT_OF_MEMORY = (
    "MemoryError",
    "OutOfMemoryError",
    "not enough memory",
    "out of memory",
    "t allocate memory",
    "bad_alloc",
    "t start new thread",
    "STATUS_ALLOC_FAILED",
)
AMBIGUOUS = (
    "could not create a primitive",
    "returned NULL without setting an exception",
    "error return without exception set",
)
"""What oneDNN and Python say when they get no memory, and of other failures, too: counts under a memory limit only."""
DEADLY = (signal.SIGKILL, signal.SIGABRT)
"""Signals that end a process when memory runs out: the kernel sends one, a library that cannot continue the other."""


def supervise(
    stage: str, variant: str | None, status: Path, words: list[str], *, needs_gpu: bool, limit_mb: int | None = None
) -> tuple[int, Error | None]:
    """Run the command `words` again in a fresh process, on a leased GPU if it wants one, and record how it ended.

    Args:
        stage: The command.
        variant: The variant it works on, if any.
        status: Where the record goes.
        words: The whole command line after `vggt-quant`.
        needs_gpu: Wait for a free GPU and let the worker see that one only.
        limit_mb: The memory limit that the worker sets itself; only to name it when it died of it.

    Returns:
        The exit code for this process, and the error if there was one.
    """
    started = time.perf_counter()
    status.parent.mkdir(parents=True, exist_ok=True)
    status.unlink(missing_ok=True)
    with gpus.lease() if needs_gpu else nullcontext() as gpu:
        environment = {**os.environ, WORKER: "1", **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}
        code, is_interrupted = _run([sys.executable, "-P", "-m", "vggt_quant", *words], environment)
    if is_interrupted:
        code = -signal.SIGINT  # whatever the worker made of it: some libraries turn a Ctrl-C into exit code 1 or into 0
    error = _reported(status) if code > 0 else None
    if code and not error:
        error = _killed(stage, -code, limit_mb) if code < 0 else _silent(stage, code, limit_mb)
        print(_sentence(stage, variant, error.message), file=sys.stderr)
    _write_status(stage, variant, status, error, time.perf_counter() - started)
    return (128 - code if code < 0 else code), error


def run_child(command: list[str], environment: dict[str, str] | None = None) -> int:
    """Run a command to its end and return its exit code, -n if signal n ended it.

    A SIGTERM to this process is handed on to the child. After Ctrl-C, which the terminal sends to both, the child may
    put its things in order. Files that were made inheritable (a GPU's lock) stay open in the child.
    """
    return _run(command, environment)[0]


def _run(command: list[str], environment: dict[str, str] | None) -> tuple[int, bool]:
    """The exit code, and whether Ctrl-C was pressed meanwhile."""
    is_interrupted = False
    with subprocess.Popen(command, env=environment, close_fds=False) as child:
        before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            while child.returncode is None:
                try:
                    child.wait()
                except KeyboardInterrupt:
                    is_interrupted = True
        finally:
            signal.signal(signal.SIGTERM, before)
    return child.returncode, is_interrupted


def work(
    stage: str, variant: str | None, status: Path | None, action: Callable[[], int | None], limit_mb: int | None = None
) -> int:
    """Do the work in this process; an exception becomes a status and an exit code, and one sentence on stderr.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, whatever a library made of it.
    """
    started = time.perf_counter()
    try:
        error, code = None, action() or 0
    except Exception as exception:  # noqa: BLE001 (the border: whatever it is goes, whole, into the status file)
        if _is_interrupt(exception):
            raise KeyboardInterrupt from None
        error = describe_error(stage, exception, limit_mb=limit_mb)
        code = error.exit_code or 1
        print(_sentence(stage, variant, error.message), file=sys.stderr)
        if error.kind != "input":
            print(error.traceback, file=sys.stderr)
    if status:
        _write_status(stage, variant, status, error, time.perf_counter() - started)
    return code


def _is_interrupt(exception: BaseException | None) -> bool:
    """Whether a Ctrl-C is the cause; an import that is interrupted may end with another exception."""
    while exception and not isinstance(exception, KeyboardInterrupt):
        exception = exception.__cause__ or exception.__context__
    return exception is not None


def describe_error(stage: str, exception: Exception, *, limit_mb: int | None = None) -> Error:
    """What happened in one sentence, and the whole traceback."""
    kind, code, message = _judge(exception, is_limited=bool(limit_mb) or memory.has_memory_limit())
    if kind == "out_of_memory" and limit_mb:
        message = f"needs more memory than its limit of {limit_mb} MB ({message})"
    trace = "".join(traceback.format_exception(exception))
    return Error(stage=stage, kind=kind, message=message, traceback=trace, exit_code=code)


def _judge(exception: BaseException, *, is_limited: bool) -> tuple[Kind, int, str]:
    """Kind of error, exit code, sentence."""
    text = f"{type(exception).__name__}: {exception}".rstrip(": ")
    has_no_memory = isinstance(exception, OSError) and exception.errno == errno.ENOMEM
    has_no_memory |= is_limited and text.endswith(AMBIGUOUS)
    if has_no_memory or any(words in text for words in OUT_OF_MEMORY):
        return "out_of_memory", 1, text
    if isinstance(exception, RuntimeError) and isinstance(exception.__context__, RuntimeError | MemoryError):
        # What a CUDA graph says that memory ran out under hides why it could not be captured.
        before = _judge(exception.__context__, is_limited=is_limited)
        if before[0] == "out_of_memory":
            return before
    if isinstance(exception, ValueError | OSError):
        return "input", 2, str(exception)
    return "exception", 1, text


def _killed(stage: str, number: int, limit_mb: int | None) -> Error:
    message = f"killed by signal {number} ({signal.Signals(number).name})"
    if number in DEADLY:
        message += _perhaps_memory(limit_mb)
    return Error(stage=stage, kind="signal", message=message, traceback=None, exit_code=128 + number)


def _perhaps_memory(limit_mb: int | None) -> str:
    return "; out of memory?" + (f" Its limit is {limit_mb} MB." if limit_mb else "")


def _reported(status: Path) -> Error | None:
    return read(Status, status).error if status.is_file() else None


def _silent(stage: str, code: int, limit_mb: int | None) -> Error:
    message = f"exited with code {code} and no error message" + (_perhaps_memory(limit_mb) if limit_mb else "")
    return Error(stage=stage, kind="exception", message=message, traceback=None, exit_code=code)


def _sentence(stage: str, variant: str | None, message: str) -> str:
    return f"vggt-quant: {f'{stage} {variant}' if variant else stage}: {message}"


def _write_status(stage: str, variant: str | None, path: Path, error: Error | None, seconds: float) -> None:
    status = Status(
        stage=stage,
        variant=variant,
        outcome="failed" if error else "ok",
        error=error,
        seconds=seconds,
        command=["vggt-quant", *sys.argv[1:]],
        created=now(),
    )
    write(status, path)
