"""End at once, with one line, when Ctrl-C is pressed while modules are imported. Standard library only."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from vggt_quant.results import files

SENTENCE = "vggt-quant: interrupted; the same command starts again."
WORKER = "VGGT_QUANT_WORKER"
"""Set in the environment of a worker, so that it does the work instead of starting another worker."""
CODE = 128 + signal.SIGINT


@contextlib.contextmanager
def calm_imports() -> Iterator[None]:
    """While the block runs, Ctrl-C in an import ends the process; elsewhere it is a `KeyboardInterrupt` as always.

    A library whose import is broken off answers with exceptions of its own, half a screen of them, or with a crash.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in the background, or somebody's own
        yield
        return
    signal.signal(signal.SIGINT, _on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _imports(frame) and not files.UNFINISHED:
        if WORKER not in os.environ:  # else its parent says so
            os.write(2, f"{SENTENCE}\n".encode())
        os._exit(CODE)
    signal.default_int_handler(number, frame)


def _imports(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
