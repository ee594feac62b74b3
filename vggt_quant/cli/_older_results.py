"""Detect results of an older version of this package in the output folder."""

import json
from collections.abc import Iterable
from pathlib import Path

from vggt_quant.results.schema import (
    AccuracyResult,
    ImagesResult,
    ModelResult,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    read,
)

SHARED = {"model": ModelResult, "images": ImagesResult, "reference": ReferenceResult}
OF_VARIANTS = {"quantize": QuantizeResult, "accuracy": AccuracyResult, "speed": SpeedResult}


def remark(folder: Path, variants: Iterable[str]) -> str | None:
    """A sentence for people if the folder holds results of these variants that an older version wrote, else None.

    The workflow makes such results again, because each step depends on the code that writes results.
    """
    files = [(kind, folder / f"{stage}.json") for stage, kind in SHARED.items()]
    files += [(kind, folder / stage / f"{name}.json") for stage, kind in OF_VARIANTS.items() for name in variants]
    return sentence(folder) if any(_is_older(kind, file) for kind, file in files) else None


def sentence(folder: Path) -> str:
    """What people are told."""
    return (
        f"{folder} holds results of an older version: they are measured again, checkpoints whose key is unchanged are "
        "reused, and files in cache/checkpoints that no result names may be deleted."
    )


def _is_older(kind: type, file: Path) -> bool:
    """Whether it is sound JSON, but no result of today."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    try:
        read(kind, file)
    except ValueError:
        return True
    return False
