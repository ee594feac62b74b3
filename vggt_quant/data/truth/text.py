"""Lines of numbers in text files, with errors that name the file and the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path


def read_lines(path: Path) -> list[tuple[str, str]]:
    """(where it stands, the line) for each line of a file that is no comment; empty lines are kept.

    Raises:
        ValueError: the file is missing or unreadable.
    """
    try:
        # A photo's name may hold bytes that are no text; they are kept as the file system keeps them.
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); unpack the data set again.") from error
    return [
        (f"{path}, line {number}", line.strip()) for number, line in enumerate(lines, 1) if not line.startswith("#")
    ]


def parse_numbers(words: Sequence[str], where: str) -> list[float]:
    """Words to finite numbers.

    Raises:
        ValueError: a word is no finite number.
    """
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{where}: {word!r} is not a finite number; unpack the data set again.")
        numbers.append(number)
    return numbers


def parse_count(word: str, where: str) -> int:
    """A word to an integer that is not negative.

    Raises:
        ValueError: the word is anything else.
    """
    if not word.isdecimal():
        raise ValueError(f"{where}: {word!r} is not a whole number; unpack the data set again.")
    return int(word)
