"""The output folder of a speed table: it holds one model, one command at a time works in it, and no result is lost."""

import os
from pathlib import Path

from vggt_quant.results.schema import Failed, ModelResult, Unsupported, read, read_outcome
from vggt_quant.results.speed_schema import SweepResult


def sweep_path(folder: Path, variant: str) -> Path:
    """Where a variant's result lies."""
    return folder / "sweeps" / f"{variant}.json"


def baseline_path(folder: Path, started: str) -> Path:
    """Where the baseline lies that was measured in the run of this time."""
    return folder / "baselines" / f"{started.replace(':', '')}.json"


def find(path: Path) -> SweepResult | Unsupported | Failed | None:
    """A result; None where there is none, or one of another version."""
    try:
        return read_outcome(SweepResult, path)
    except (FileNotFoundError, ValueError):
        return None


def expect_same_table(folder: Path, model: ModelResult, image_size: tuple[int, int]) -> None:
    """Refuse to mix tables.

    Raises:
        ValueError: The folder has results of another model or image size.
    """
    found = [find(path) for path in _sweeps(folder)]
    sizes = {tuple(sweep.image_size) for sweep in found if isinstance(sweep, SweepResult)}
    if not sizes:
        return
    try:
        there = read(ModelResult, folder / "inputs" / "model.json")
    except (FileNotFoundError, ValueError):
        return
    if there.weights_sha256 != model.weights_sha256 or sizes != {image_size}:
        held, asked = _table(there, *sizes), _table(model, image_size)
        raise ValueError(f"{folder} holds a table of {held}; give another --output for {asked}.")


def keep_earlier(folder: Path, variant: str, key: str) -> None:
    """Put a variant's result of another key (settings, sources, machine) into `earlier/` before it is replaced."""
    path = sweep_path(folder, variant)
    there = find(path)
    if isinstance(there, SweepResult) and there.key != key:
        kept = folder / "earlier" / f"{variant}-{(there.started or '').replace(':', '')}.json"
        kept.parent.mkdir(exist_ok=True)
        os.replace(path, kept)


def _sweeps(folder: Path) -> list[Path]:
    return sorted((folder / "sweeps").glob("*.json"))


def _table(model: ModelResult, *sizes: tuple[int, ...]) -> str:
    return f"{model.name} at {', '.join(f'{height}x{width}' for height, width in sizes)}"
