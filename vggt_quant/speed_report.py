"""The results of the variants -> one table of cost against size: JSON for programs, text and a figure for people."""

from pathlib import Path

from vggt_quant import growth, roofline, speed_figures, speed_summary
from vggt_quant.machine import now
from vggt_quant.results import Error, ModelResult, read, write
from vggt_quant.speed_results import Cell, SizeResult, SpeedRow, SpeedTable, SweepResult
from vggt_quant.typed_json import write_text

MEMORIES_GIB = (8, 16, 24, 80)
"""Memories of GPUs that people have."""


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


def gather(
    folder: Path, wanted: dict[str, str], label: str, num_images: list[int], image_size: tuple[int, int]
) -> SpeedTable:
    """The table of all variants in `wanted` (name -> key); what has no result of that key yet is a row without figures.

    Args:
        folder: The output folder of `vggt-quant speed`.
        wanted: The rows, in order.
        label: What the weights are.
        num_images: The columns.
        image_size: (height, width) in pixels.
    """
    sweeps = {name: sweep for name in wanted if (sweep := find(sweep_path(folder, name)))}
    sweeps = {name: sweep for name, sweep in sweeps.items() if sweep.key == wanted[name]}
    runs = {sweep.started for sweep in sweeps.values() if sweep.started}
    found = {started: find(baseline_path(folder, started)) for started in sorted(runs)}
    baselines = {started: sweep for started, sweep in found.items() if sweep and sweep.outcome == "ok"}
    devices = [sweep.provenance.device_name for sweep in sweeps.values() if sweep.provenance]
    return SpeedTable(
        label=label,
        image_size=list(image_size),
        num_images=list(num_images),
        device=devices[0] if devices else "nothing measured",
        rows=[_row(name, sweeps.get(name), baselines) for name in wanted],
        baselines=list(baselines.values()),
        created=now(),
    )


def collect(folder: Path, names: list[str]) -> SpeedTable:
    """The table of whatever lies in the folder, whoever measured it: to be drawn on any machine.

    Args:
        folder: The output folder of `vggt-quant speed`, or `sweeps`, `baselines` and `inputs/model.json` of it.
        names: The rows, in order; those without a result are left out.

    Raises:
        ValueError: None of them has a result, or there is no model.json.
    """
    sweeps = {name: sweep for name in names if (sweep := find(sweep_path(folder, name)))}
    shapes = {tuple(sweep.image_size) for sweep in sweeps.values() if sweep.image_size}
    if len(shapes) != 1:
        raise ValueError(
            f"{folder / 'sweeps'} has results for {len(shapes)} image sizes of these variants; one is drawn."
        )
    numbers = sorted({size.num_images for sweep in sweeps.values() for size in sweep.sizes})
    wanted = {name: sweep.key or "" for name, sweep in sweeps.items()}
    return gather(folder, wanted, read(ModelResult, folder / "inputs" / "model.json").label, numbers, shapes.pop())


def write_table(table: SpeedTable, folder: Path) -> str:
    """Write speed_table.json, .txt and .png; returns the text."""
    text = speed_summary.summary(table)
    write(table, folder / "speed_table.json")
    write_text(text + "\n", folder / "speed_table.txt")
    speed_figures.plot(table, folder / "speed_table.png")
    return text


def _row(name: str, sweep: SweepResult | None, baselines: dict[str, SweepResult]) -> SpeedRow:
    if sweep is None:
        error = Error(stage="speed", kind="exception", message="not measured yet", traceback=None, exit_code=None)
        return SpeedRow(variant=name, outcome="failed", error=error, sweep=None)
    sizes = [*sweep.sizes, *sweep.filled]
    baseline = baselines.get(sweep.started or "")
    return SpeedRow(
        variant=name,
        outcome=sweep.outcome,
        error=sweep.error,
        sweep=sweep,
        cells=[_cell(size, baseline, sweep) for size in sweep.sizes],
        latency_growth_ms=growth.of_latency(sweep.sizes),
        memory_growth_bytes=growth.of_memory(sweep.sizes),
        capacities=[growth.capacity(gib, sizes) for gib in MEMORIES_GIB] if sizes else [],
    )


def _cell(size: SizeResult, baseline: SweepResult | None, sweep: SweepResult) -> Cell:
    beside = _comparable(size, baseline, sweep)
    compared = [output for output in size.outputs if not output.identical]
    is_whole = bool(compared) and all(output.sqnr_db is not None for output in compared)
    worst = min(compared, key=lambda output: output.sqnr_db) if is_whole else None
    device_name = sweep.provenance.device_name if sweep.provenance else ""
    least_ms = roofline.least_ms(size.operations, size.least_bytes, device_name)
    return Cell(
        num_images=size.num_images,
        outcome=size.outcome,
        reason=size.reason,
        latency_ms_median=size.latency_ms_median,
        latency_ms_low=size.latency_ms_low,
        latency_ms_high=size.latency_ms_high,
        peak_memory_bytes=size.peak_memory_bytes,
        speedup_vs_bf16=beside.latency_ms_median / size.latency_ms_median if beside else None,
        apart_from_bf16=_are_apart(size, beside) if beside and beside != size else None,
        least_ms=least_ms,
        roofline_share=least_ms / size.latency_ms_median if least_ms and size.latency_ms_median else None,
        worst_output=worst.output if worst else None,
        worst_sqnr_db=worst.sqnr_db if worst else None,
        identical=not compared if size.outputs else None,
    )


def _comparable(size: SizeResult, baseline: SweepResult | None, sweep: SweepResult) -> SizeResult | None:
    """The baseline at this size, if it was measured on the same device."""
    if not (baseline and baseline.provenance and sweep.provenance and size.latency_ms_median):
        return None
    same = [one for one in baseline.sizes if one.num_images == size.num_images and one.latency_ms_median]
    return same[0] if same and baseline.provenance.device_name == sweep.provenance.device_name else None


def _are_apart(one: SizeResult, other: SizeResult) -> bool | None:
    ends = (one.latency_ms_low, one.latency_ms_high, other.latency_ms_low, other.latency_ms_high)
    if None in ends:
        return None
    low, high, other_low, other_high = ends
    return high < other_low or other_high < low
