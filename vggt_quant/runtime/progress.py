"""Progress bars for long work, shown only if stderr is a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate over `items` under a bar on stderr."""
    return rich_track(items, description, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


@contextlib.contextmanager
def steps(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr for `total` steps; call what it gives after each of them."""
    is_off = not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=is_off, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextlib.contextmanager
def transfer(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr for bytes that arrive; call what it gives with the number of each new lot of them."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    is_off = not sys.stderr.isatty()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=is_off, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
