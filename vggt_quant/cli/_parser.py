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

    def __init__(self, **settings: Any) -> None:
        """As `argparse.ArgumentParser`."""
        super().__init__(**{"allow_abbrev": False, **settings})

    # argparse declares one signature for each way to give a namespace; all of them end here.
    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # see above
        """Parse after older spellings are replaced; a flag that this parser does not have is refused first."""
        words = list(sys.argv[1:] if args is None else args)
        known = self._option_string_actions
        if self._subparsers is None:
            words = list(current(words, known))
        # With commands, what comes after the command is the command's to judge.
        own = words if self._subparsers is None else itertools.takewhile(lambda word: word.startswith("-"), words)
        for flag in (word.partition("=")[0] for word in own if word.startswith("--") and word != "--"):
            if flag not in known:
                self.error(f"unrecognized arguments: {flag}{_suggestion(flag, known)}")
        return super().parse_known_args(words, namespace)

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


def current(words: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """The words in today's spelling: hyphens in flags, and today's names of flags that had others.

    Args:
        words: A command line.
        known: The flags that its command has.
    """
    waiting = [hyphenated(word) for word in words]
    while waiting:
        word = waiting.pop(0)
        flag, equals, value = word.partition("=")
        following = value if equals else waiting[0] if waiting else ""
        yield _today(flag, following, set(known)) + equals + value if word.startswith("--") else word


def hyphenated(word: str) -> str:
    """`--max_images=3` as `--max-images=3`: underscore spellings are accepted."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _today(flag: str, value: str, known: set[str]) -> str:
    """Today's name of a flag, which may depend on its value."""
    if flag == "--out" and flag not in known:
        is_product = "--result" not in known or ("--output" in known and value.endswith(".safetensors"))
        return "--output" if is_product else "--result"
    if flag == "--variants" and "--variants-file" in known and value.endswith((".yaml", ".yml")):
        return "--variants-file"
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
