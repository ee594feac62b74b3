"""The output folder of a speed table: one command at a time, of one model, and nothing that was measured is lost."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vggt_quant.results.schema import ModelResult, read
from vggt_quant.results.speed_schema import SweepResult
from vggt_quant.runtime import machine


def sweep_path(folder: Path, variant: str) -> Path:
    """Where a variant's result lies."""
    return folder / "sweeps" / f"{variant}.json"


def baseline_path(folder: Path, started: str) -> Path:
    """Where the baseline lies that was measured in the run of this time."""
    return folder / "baselines" / f"{started.replace(':', '')}.json"


def find(path: Path) -> SweepResult | None:
    """A result; None where there is none, or one of another version."""
    try:
        return read(SweepResult, path)
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold the folder, by a lock that the jobs inherit: jobs that outlive a killed command still have it.

    Raises:
        ValueError: Another run is at work there, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a", encoding="utf-8") as file:
            try:
                machine.try_lock(file)
            except BlockingIOError as error:
                cure = "wait for its end, or give another --output-dir"
                raise ValueError(f"Another run, or a job of a killed one, is at work in {folder}: {cure}.") from error
            os.set_inheritable(file.fileno(), True)
            yield
    except OSError as error:
        where = error.filename or folder
        cure = f"see that --output-dir {folder} can be written to and has room, then give the same command again"
        raise ValueError(f"{where}: {error.strerror}; {cure}.") from error


def expect_same_table(folder: Path, model: ModelResult, image_size: tuple[int, int]) -> None:
    """Refuse to mix tables.

    Raises:
        ValueError: The folder has results of another model or image size.
    """
    sizes = {tuple(sweep.image_size) for path in _sweeps(folder) if (sweep := find(path)) and sweep.image_size}
    if not sizes:
        return
    try:
        there = read(ModelResult, folder / "inputs" / "model.json")
    except (FileNotFoundError, ValueError):
        return
    if there.weights_sha256 != model.weights_sha256 or sizes != {image_size}:
        held, asked = _table(there, *sizes), _table(model, image_size)
        raise ValueError(f"{folder} holds a table of {held}; give another --output-dir for {asked}.")


def keep_earlier(folder: Path, variant: str, key: str) -> None:
    """Put a variant's result of another key (settings, sources, machine) into `earlier/` before it is replaced."""
    path = sweep_path(folder, variant)
    there = find(path)
    if there and there.outcome == "ok" and there.key != key:
        kept = folder / "earlier" / f"{variant}-{(there.started or '').replace(':', '')}.json"
        kept.parent.mkdir(exist_ok=True)
        os.replace(path, kept)


def _sweeps(folder: Path) -> list[Path]:
    return sorted((folder / "sweeps").glob("*.json"))


def _table(model: ModelResult, *sizes: tuple[int, ...]) -> str:
    return f"{model.name} at {', '.join(f'{height}x{width}' for height, width in sizes)}"
