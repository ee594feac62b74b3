"""The command-line parser: no abbreviated flags, older spellings accepted, "did you mean" for a mistyped flag."""

import argparse
import itertools
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from vggt_quant.results.validation import near
from vggt_quant.runtime.jobs import WORKER

OLDER = {
    "--model-name": "--model",
    "--image-folder": "--images",
    "--cache-dir": "--cache",
    "--output-dir": "--output",
    "--methods": "--variants",
}
SAID = ("--methods",)
"""Older spellings that are pointed out, since the word means something else today."""

GROUPS = {False: "commands", True: "steps that the workflow calls"}
EXAMPLES = (
    "vggt-quant compare --model facebook/VGGT-1B --images my_photos --output results",
    "vggt-quant quantize --model facebook/VGGT-1B --variant int4_group128 --output vggt-int4.safetensors",
)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations; its subparsers are of the same kind."""

    _typed: Mapping[str, str] = {}
    """The flags that were given, and how each was spelt."""

    def __init__(self, **settings: Any) -> None:
        """As `argparse.ArgumentParser`."""
        super().__init__(**{"allow_abbrev": False, **settings})

    # argparse declares one signature for each way to give a namespace; all of them end here.
    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # see above
        """Parse after older spellings are replaced; a flag that this parser does not have is refused first."""
        words = list(sys.argv[1:] if args is None else args)
        known = self._option_string_actions
        if self._subparsers is None:
            words = self._in_todays_spelling(words)
        # With commands, what comes after the command is the command's to judge.
        own = words if self._subparsers is None else itertools.takewhile(lambda word: word.startswith("-"), words)
        for flag in (word.partition("=")[0] for word in own if word.startswith("--") and word != "--"):
            if flag not in known:
                self.error(f"unrecognized arguments: {flag}{_suggestion(flag, known)}")
        return super().parse_known_args(words, namespace)

    def _in_todays_spelling(self, words: list[str]) -> list[str]:
        """The words for argparse; two spellings of one flag are refused, since one would be dropped silently."""
        spellings: dict[str, str] = {}
        today = []
        for word, typed in current(words, self._option_string_actions):
            flag = word.partition("=")[0]
            if typed and (first := spellings.setdefault(flag, typed)) != typed:
                self.error(f"{first} and {typed} are spellings of one flag; keep one of them (today's is {flag})")
            today.append(word)
        self._typed = {flag: hyphenated(typed) for flag, typed in spellings.items()}
        return today

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message that names the flag as it was typed."""
        flag, colon, rest = message.removeprefix("argument ").partition(": ")
        typed = self._typed.get(flag, flag)
        is_about_flag = colon and message.startswith("argument ")
        super().error(f"argument {typed}: {rest}" if is_about_flag else message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r}{near(value, map(str, action.choices))}; choose one of {choices}"
            )


class Version(argparse.Action):
    """`--version`; looks the version up only if it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and end."""
        import importlib.metadata

        print(f"vggt-quant {importlib.metadata.version('vggt-quant')}")
        parser.exit()


def current(words: Iterable[str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The words in today's spelling: hyphens in flags, and today's names of flags that had others.

    A YAML file among the names of `--variants` becomes `--variants-file`.

    Args:
        words: A command line.
        known: The flags that its command has.

    Yields:
        Each word, and the spelling that it had if it is a flag, else nothing.
    """
    waiting, known = list(words), set(known)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            yield word, ""
            continue
        flag, equals, value = hyphenated(word).partition("=")
        values = [value] if equals else list(itertools.takewhile(lambda word: not word.startswith("-"), waiting))
        today, typed = _today(flag, values[0] if values else "", known), word.partition("=")[0]
        files = [value for value in values if value.endswith((".yaml", ".yml")) and "," not in value]
        if today != "--variants" or "--variants-file" not in known or not files:
            yield today + equals + value, typed
            continue
        del waiting[: 0 if equals else len(values)]
        names = [value for value in values if value not in files]
        for part, its_values in (("--variants-file", files), (today, names)):
            yield from [(part, typed), *((value, "") for value in its_values)] if its_values else ()


def hyphenated(word: str) -> str:
    """`--max_images=3` as `--max-images=3`: underscore spellings are accepted."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _today(flag: str, value: str, known: set[str]) -> str:
    """Today's name of a flag, which may depend on its value."""
    if flag == "--out" and flag not in known:
        is_product = "--result" not in known or ("--output" in known and value.endswith(".safetensors"))
        return "--output" if is_product else "--result"
    if flag in known or flag not in OLDER:
        return flag
    if flag in SAID and WORKER not in os.environ:
        print(f"vggt-quant: {flag} is the older spelling of {OLDER[flag]}.", file=sys.stderr)
    return OLDER[flag]


def _suggestion(flag: str, known: Iterable[str]) -> str:
    known = set(known)
    suggestion = near(flag, known | {older for older, today in OLDER.items() if today in known})
    for older, today in OLDER.items():
        suggestion = suggestion.replace(repr(older), repr(today))
    return suggestion


def overview(commands: Mapping[str, tuple[str, bool]]) -> str:
    """The commands in groups, each with its line of help, and examples.

    Args:
        commands: The help of each, and whether it is a step that the workflow calls.
    """
    width = min(shutil.get_terminal_size().columns, 120) - 2
    start = max(map(len, commands)) + 4
    lines = []
    for is_step, title in GROUPS.items():
        lines.append(f"{title}:")
        for name, (text, _) in ((name, entry) for name, entry in commands.items() if entry[1] == is_step):
            wrapped = textwrap.wrap(text, max(width - start, 20))
            lines += [f"  {name}".ljust(start) + wrapped[0], *(" " * start + line for line in wrapped[1:])]
        lines.append("")
    return "\n".join([*lines, "examples:", *(f"  {example}" for example in EXAMPLES)])
