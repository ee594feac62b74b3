"""What a person sees: tables, requests of a dry run, and never a secret."""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from runpod.client.api import KEY_VARIABLE, base_url

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_REFERENCE = re.compile(r"\{\{ RUNPOD_SECRET_\w+ \}\}")


def say(text: str) -> None:
    """Print a result."""
    print(clean(text), flush=True)


def note(text: str) -> None:
    """Print what is no result (estimates, warnings, errors) on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """`text` without the API key, wherever it came from."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return text.replace(key, "***") if key else text


def show_request(method: str, path: str, body: dict[str, Any] | None) -> None:
    """Print a request that a dry run does not send: where it would go on stderr, its body on stdout."""
    note(f"{method} {base_url()}{path}")
    if body is not None:
        say(json.dumps(masked(body), indent=2))


def masked(body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the values of secret variables as ***; references to RunPod's secrets stay."""
    env = {name: "***" if is_secret(name, value) else value for name, value in body.get("env", {}).items()}
    return {**body, "env": env} if env else body


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret in clear."""
    return bool(value and _SECRET_NAME.search(name) and not _REFERENCE.fullmatch(value))


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head in columns."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
