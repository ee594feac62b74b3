"""Progress bars on long work; silent when stderr is no terminal (a log file wants no bars)."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate over `items` under a bar on stderr."""
    return rich_track(items, description, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
