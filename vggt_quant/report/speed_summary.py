"""The table of cost against size as text: a block per figure, a row per variant, a column per number of images."""

import math
import textwrap
from collections.abc import Callable

from vggt_quant.report.rows import format_number, one_line
from vggt_quant.report.text_table import WIDTH, lay_out
from vggt_quant.results.growth import GIB
from vggt_quant.results.schema import Provenance
from vggt_quant.results.speed_schema import Capacity, Cell, SpeedRow, SpeedTable, SweepResult

FARTHEST = 10
"""A fit is not used beyond this many times the largest number of images that was run."""


def summary(table: SpeedTable) -> str:
    """All blocks, below what was measured where and above what is to be known about it."""
    runs = [sweep.started for sweep in table.baselines]
    title = "Time of one forward pass in ms: median, ± to the farther end of its 95 % interval (- not run)"
    blocks = [_sizes(table, runs, title, _time)]
    if table.baselines:
        title = "Speedup over our bf16 engine in the same session (~ not significant: the intervals touch)"
        blocks.append(_sizes(table, runs, title, _speedup))
    title = "Share of the roofline in %: least possible time of the pass on this GPU over its time"
    blocks += [
        _sizes(table, runs, title, _share, only_filled=True),
        _sizes(table, runs, _peak_title(table), _peak),
        _sizes(table, runs, "Lowest SQNR of any output against strict fp32 in dB", _sqnr, only_filled=True),
        _loading(table, runs),
    ]
    parts = [_head(table), *blocks, _remarks(table)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _head(table: SpeedTable) -> list[str]:
    height, width = table.image_size
    lines = [
        f"Cost against the number of images: {table.label}, images of {height} x {width}",
        f"Device    {table.device}",
    ]
    softwares = dict.fromkeys(_software(row.sweep, row.sweep.provenance) for row in table.rows if row.sweep)
    for software in softwares:
        lines += textwrap.wrap(f"Software  {software}", WIDTH, subsequent_indent=" " * 10)
    return lines


def _peak_title(table: SpeedTable) -> str:
    if any(row.sweep.memory_kind == "cuda allocator" for row in table.rows if row.sweep):
        return "Peak GPU memory of the forward pass in GiB (without loading and about 0.5 GiB of the CUDA context)"
    return "Peak memory of the forward pass in GiB (without loading)"


def _software(sweep: SweepResult, provenance: Provenance) -> str:
    named = {"torch": provenance.torch, "CUDA": provenance.cuda, "driver": provenance.driver, **sweep.libraries}
    threads = [f"{provenance.cpu_threads} CPU threads"] if provenance.device == "cpu" else []
    return ", ".join([*(f"{name} {version}" for name, version in named.items() if version), *threads])


def _sizes(
    table: SpeedTable, runs: list[str | None], title: str, show: Callable[[Cell], str], *, only_filled: bool = False
) -> list[str]:
    """A block with a column for each number of images."""
    rows = [{cell.num_images: show(cell) for cell in row.cells} for row in table.rows]
    columns = [n for n in table.num_images if not only_filled or any(row.get(n, "-") != "-" for row in rows)]
    if not columns:
        return []
    cells = [[str(number) for number in columns], *([row.get(n, "-") for n in columns] for row in rows)]
    names = ["images", *(_name(row, runs) for row in table.rows)]
    return [title, "", *lay_out(names, cells, [""] * len(names), header=1)]


def _name(row: SpeedRow, runs: list[str | None]) -> str:
    """The variant, with the number of its run where there are several."""
    if len(runs) > 1 and row.sweep and row.sweep.started in runs:
        return f"{row.variant} [{runs.index(row.sweep.started) + 1}]"
    return row.variant


def _time(cell: Cell) -> str:
    if cell.latency_ms_median is None:
        return "memory" if cell.outcome == "out_of_memory" else "-"
    text = format_number(cell.latency_ms_median)
    if cell.latency_ms_low is None or cell.latency_ms_high is None:
        return text
    farther = max(cell.latency_ms_high - cell.latency_ms_median, cell.latency_ms_median - cell.latency_ms_low)
    decimals = len(text.partition(".")[2])
    up = math.ceil(farther * 10**decimals - 1e-9) / 10**decimals  # rounded up: the interval is never shown too narrow
    return f"{text} ±{up:.{decimals}f}"


def _speedup(cell: Cell) -> str:
    if cell.speedup_vs_bf16 is None:
        return "-"
    return f"{cell.speedup_vs_bf16:.2f}x{'~' if cell.apart_from_bf16 is False else ' '}"


def _share(cell: Cell) -> str:
    return f"{100 * cell.roofline_share:.0f}" if cell.roofline_share is not None else "-"


def _peak(cell: Cell) -> str:
    return f"{cell.peak_memory_bytes / GIB:.2f}" if cell.peak_memory_bytes is not None else _time(cell)


def _sqnr(cell: Cell) -> str:
    if cell.identical:
        return "identical"
    return f"{cell.worst_sqnr_db:.1f} {cell.worst_output}" if cell.worst_sqnr_db is not None else "-"


def _loading(table: SpeedTable, runs: list[str | None]) -> list[str]:
    """What a variant weighs, what loading it takes, and how many images fit."""
    memories = [f"{one.memory_gib} GiB" for row in table.rows for one in row.capacities]
    columns = list(dict.fromkeys(memories))
    heads = ["file", "weights", "load time", "load peak", *columns]
    cells = [heads, *(_loading_cells(row, columns) for row in table.rows)]
    names = ["variant", *(_name(row, runs) for row in table.rows)]
    title = "Sizes in GiB, loading, and the largest number of images whose peak fits in a memory"
    if any(one.how == "fitted" and one.num_images for row in table.rows for one in row.capacities):
        title += f"\n(~ by the fitted peak; > where that is beyond {FARTHEST} times the images that were run)"
    return [title, "", *lay_out(names, cells, [""] * len(names), header=1)]


def _loading_cells(row: SpeedRow, columns: list[str]) -> list[str]:
    sweep = row.sweep
    if sweep is None or not sweep.sizes:
        return ["-"] * (4 + len(columns))
    sizes = (sweep.checkpoint_bytes, sweep.weights_bytes, sweep.load_peak_memory_bytes)
    file, weights, peak = (format_number(size / GIB) for size in sizes)
    most = max((size.num_images for size in [*sweep.sizes, *sweep.filled] if size.outcome == "ok"), default=0)
    fits = [_capacity(one, FARTHEST * most) for one in row.capacities] or ["-"] * len(columns)
    return [file, weights, f"{sweep.load_seconds:.1f} s", peak, *fits]


def _capacity(capacity: Capacity, farthest: int) -> str:
    if capacity.num_images is None:
        return "-"
    if capacity.num_images > farthest:
        return f">{farthest:,}"
    return f"{'~' if capacity.how == 'fitted' and capacity.num_images else ''}{capacity.num_images:,}"


def _medians(sweep: SweepResult) -> str:
    return ", ".join(format_number(size.latency_ms_median) for size in sweep.sizes)


def _reason(row: SpeedRow) -> str:
    assert row.error
    outcome = "" if row.outcome == "missing" else f" {row.outcome}"
    return f"{row.variant}{outcome}: {one_line(row.error.message)}"


def _remarks(table: SpeedTable) -> list[str]:
    """What did not run and why, and which runs the rows are of."""
    lines = [_reason(row) for row in table.rows if row.error]
    for row in table.rows:
        lines += [
            f"{row.variant}: {reason}" for reason in dict.fromkeys(cell.reason for cell in row.cells if cell.reason)
        ]
        if row.sweep and row.sweep.note:
            lines.append(f"{row.variant}: {row.sweep.note}")
    runs = [one.started for one in table.baselines]
    alone = [row.variant for row in table.rows if row.sweep and row.cells and row.sweep.started not in runs]
    if alone:
        lines.append(f"No speedup of {', '.join(alone)}: there is no bf16 of the same session.")
    if "random weights" in table.label and any(cell.worst_sqnr_db for row in table.rows for cell in row.cells):
        lines.append("The weights are random: SQNR checks the kernels, it does not rank variants.")
    if len(table.baselines) > 1:
        lines.append("Each session timed our bf16 engine again; a speedup compares within its session:")
        lines += [f"[{i}] {one.started}, bf16: {_medians(one)} ms" for i, one in enumerate(table.baselines, start=1)]
    return [part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
