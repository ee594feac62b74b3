"""The results of the variants -> one table of cost against size: JSON for programs, text and a figure for people."""

import math
from pathlib import Path

from vggt_quant.report import roofline, speed_figures, speed_summary
from vggt_quant.report.speed_folder import baseline_path, find, sweep_path
from vggt_quant.results import growth
from vggt_quant.results.files import write_text
from vggt_quant.results.schema import Error, Failed, ModelResult, Unsupported, read, read_outcome, write
from vggt_quant.results.speed_schema import Cell, SizeResult, SpeedRow, SpeedTable, SweepResult
from vggt_quant.runtime.provenance import now

MEMORIES_GIB = (8, 16, 24, 80)
"""Memories of GPUs that people have."""
Outcomes = dict[str, SweepResult | Unsupported | Failed]
"""Variant -> what it came to."""


def label_of(model: ModelResult) -> str:
    """What the weights are, and in the sizes of which model if they are random."""
    return f"{model.name.partition('-random')[0]}, {model.label}" if model.random_weights else model.label


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
    found = {name: outcome for name in wanted if (outcome := find(sweep_path(folder, name)))}
    found = {name: outcome for name, outcome in found.items() if outcome.key == wanted[name]}
    return _table(list(wanted), found, _baselines(folder, found), label, num_images, image_size)


def _baselines(folder: Path, found: Outcomes) -> dict[str, SweepResult]:
    """The baselines of all runs that the results are of, by the time of the run."""
    runs = sorted({outcome.started for outcome in found.values() if outcome.started})
    known = {started: find(baseline_path(folder, started)) for started in runs}
    return {started: outcome for started, outcome in known.items() if isinstance(outcome, SweepResult)}


def _table(
    names: list[str],
    found: Outcomes,
    known: dict[str, SweepResult],
    label: str,
    num_images: list[int],
    image_size: tuple[int, ...],
) -> SpeedTable:
    runs = {outcome.started for outcome in found.values()}
    baselines = {started: sweep for started, sweep in known.items() if started in runs}
    devices = dict.fromkeys(sweep.provenance.device_name for sweep in _finished(found))
    return SpeedTable(
        label=label,
        image_size=list(image_size),
        num_images=list(num_images),
        device=" and ".join(devices) or "nothing measured",
        rows=[_row(name, found.get(name), baselines) for name in names],
        baselines=list(baselines.values()),
        created=now(),
    )


def _finished(found: Outcomes) -> list[SweepResult]:
    return [outcome for outcome in found.values() if isinstance(outcome, SweepResult)]


def names_in(folder: Path, asked: list[str], order: list[str]) -> list[str]:
    """The variants that have a result in the folder: those asked for and the first of `order`, or else all.

    Raises:
        ValueError: One that is asked for has none, or there is none at all.
    """
    there = sorted(path.stem for path in (folder / "sweeps").glob("*.json"))
    if not there:
        raise ValueError(f"There is no result in {folder / 'sweeps'}; give the --output of a `vggt-quant speed`.")
    if absent := [name for name in asked if name not in there]:
        raise ValueError(f"{folder / 'sweeps'} has no result of {', '.join(absent)}; there are {', '.join(there)}.")
    wanted = [*order[:1], *asked] if asked else [*order, *there]
    return [name for name in dict.fromkeys(wanted) if name in there]


def collect(folder: Path, names: list[str]) -> SpeedTable:
    """The table of whatever lies in the folder, whoever measured it: to be drawn on any machine.

    Args:
        folder: The output folder of `vggt-quant speed`, or `sweeps`, `baselines` and `inputs/model.json` of it.
        names: The rows, in order; each has a result there.

    Raises:
        ValueError: A result is damaged, none has figures, they are of several image sizes, or there is no model.json.
    """
    found: Outcomes = {name: read_outcome(SweepResult, sweep_path(folder, name)) for name in names}
    baselines = _baselines(folder, found)
    found = {name: _fullest(outcome, list(baselines.values())) for name, outcome in found.items()}
    shapes = {tuple(sweep.image_size) for sweep in _finished(found)}
    if len(shapes) != 1:
        problem = "are of several image sizes" if shapes else "have no figures"
        raise ValueError(
            f"The results in {folder / 'sweeps'} {problem}: {', '.join(names)}; name others by --variants."
        )
    numbers = sorted({size.num_images for sweep in _finished(found) for size in sweep.sizes})
    model = folder / "inputs" / "model.json"
    if not model.is_file():
        raise ValueError(
            f"There is no {model}, which says what the weights are; copy it there from the measured folder."
        )
    return _table(names, found, baselines, label_of(read(ModelResult, model)), numbers, shapes.pop())


def _fullest(
    outcome: SweepResult | Unsupported | Failed, baselines: list[SweepResult]
) -> SweepResult | Unsupported | Failed:
    """The run of this variant with the most sizes: a later piece of the table may have timed the baseline on fewer."""
    if not isinstance(outcome, SweepResult):
        return outcome
    same = [one for one in baselines if one.variant == outcome.variant]
    return max([outcome, *same], key=lambda one: len(one.sizes))


def write_table(table: SpeedTable, folder: Path) -> str:
    """Write speed_table.json, .txt and .png; returns the text."""
    text = speed_summary.summary(table)
    write(table, folder / "speed_table.json")
    write_text(text + "\n", folder / "speed_table.txt")
    speed_figures.plot(table, folder / "speed_table.png")
    return text


def _row(name: str, outcome: SweepResult | Unsupported | Failed | None, baselines: dict[str, SweepResult]) -> SpeedRow:
    if outcome is None:
        error = Error(stage="speed", kind="exception", message="not measured yet", traceback=None, exit_code=None)
        return SpeedRow(variant=name, outcome="missing", error=error, sweep=None)
    if not isinstance(outcome, SweepResult):
        return SpeedRow(variant=name, outcome=outcome.outcome, error=outcome.error, sweep=None)
    sizes = [*outcome.sizes, *outcome.filled]
    baseline = baselines.get(outcome.started or "")
    return SpeedRow(
        variant=name,
        outcome="ok",
        error=None,
        sweep=outcome,
        cells=[_cell(size, baseline, outcome) for size in outcome.sizes],
        latency_growth_ms=growth.of_latency(outcome.sizes),
        memory_growth_bytes=growth.of_memory(outcome.sizes),
        capacities=[growth.capacity(gib, sizes) for gib in _memories(outcome)] if sizes else [],
    )


def _memories(sweep: SweepResult) -> list[int]:
    return sorted({*MEMORIES_GIB, *(size.tried_gib for size in sweep.filled if size.tried_gib)})


def _cell(size: SizeResult, baseline: SweepResult | None, sweep: SweepResult) -> Cell:
    beside = _comparable(size, baseline, sweep)
    compared = [output for output in size.outputs if not output.identical]
    ratios = [(output.sqnr_db, output.output) for output in compared if output.sqnr_db is not None]
    worst = min(ratios) if ratios and len(ratios) == len(compared) else None
    least_ms = roofline.least_ms(size.operations, size.least_bytes, sweep.provenance.device_name)
    return Cell(
        num_images=size.num_images,
        outcome=size.outcome,
        reason=size.reason,
        latency_ms_median=size.latency_ms_median,
        latency_ms_low=size.latency_ms_low,
        latency_ms_high=size.latency_ms_high,
        peak_memory_bytes=size.peak_memory_bytes,
        speedup_vs_bf16=_ratio(beside, size),
        apart_from_bf16=_are_apart(size, beside) if beside and beside != size else None,
        least_ms=least_ms,
        roofline_share=least_ms / size.latency_ms_median if least_ms and size.latency_ms_median else None,
        worst_output=worst[1] if worst else None,
        worst_sqnr_db=worst[0] if worst else None,
        identical=not compared if size.outputs else None,
    )


def _comparable(size: SizeResult, baseline: SweepResult | None, sweep: SweepResult) -> SizeResult | None:
    """The baseline at this size, if it was measured on the same device."""
    if baseline is None or baseline.provenance.device_name != sweep.provenance.device_name:
        return None
    return next((one for one in baseline.sizes if one.num_images == size.num_images and one.latency_ms_median), None)


def _ratio(baseline: SizeResult | None, size: SizeResult) -> float | None:
    if baseline is None or not baseline.latency_ms_median or not size.latency_ms_median:
        return None
    return baseline.latency_ms_median / size.latency_ms_median


def _are_apart(one: SizeResult, other: SizeResult) -> bool | None:
    ends = (one.latency_ms_low, one.latency_ms_high, other.latency_ms_low, other.latency_ms_high)
    low, high, other_low, other_high = (math.nan if end is None else end for end in ends)
    return None if None in ends else high < other_low or other_high < low
