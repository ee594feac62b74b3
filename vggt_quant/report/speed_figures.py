"""Cost against the number of images as a picture: time and peak memory of each variant, with the fitted growth.

Marks are measurements, lines are fits. Variants differ in colour and in mark, so no information is in colour alone. The
colours are Okabe and Ito's, grey and violet.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from vggt_quant.report.bars import INK, printable
from vggt_quant.report.rows import format_number
from vggt_quant.results.files import write_bytes
from vggt_quant.results.growth import GIB, at
from vggt_quant.results.speed_schema import Cell, Growth, SpeedRow, SpeedTable

DPI = 160
COLORS = ("#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#6A3D9A")
MARKS = "osD^vPX<>*"
GRID = "#E3E3E3"
FAR_SLOWER = 0.7
PLAIN = StrMethodFormatter("{x:g}")


def plot(table: SpeedTable, path: Path | str) -> None:
    """Write the picture as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure(table).canvas.print_figure(buffer, format="png", dpi=DPI)
    write_bytes(buffer.getvalue(), path)


def figure(table: SpeedTable) -> Figure:
    """Time, speedup over our bf16 engine, and peak memory, with the fits in words below them."""
    rows = [row for row in table.rows if any(cell.outcome == "ok" for cell in row.cells)]
    made = Figure(figsize=(18, 6.2 + 0.24 * len(rows)), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    height, width = table.image_size
    title = f"{printable(table.label)}: cost against the number of images of {height} x {width}"
    made.suptitle(f"{title}\n{printable(table.device)}", fontsize=13, color=INK, parse_math=False)
    time, speedup, memory = made.subplots(1, 3)
    _panel(time, rows, _milliseconds, lambda row: row.latency_growth_ms, 1.0, "ms")
    _speedups(speedup, rows)
    _panel(memory, rows, _gibibytes, lambda row: row.memory_growth_bytes, GIB, "GiB")
    if rows:
        time.set_yscale("log")
        time.yaxis.set_major_formatter(PLAIN)
        time.yaxis.set_minor_formatter(PLAIN)
        time.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        memory.set_ylim(bottom=0)
        memory.set_xlim(left=0)
        for axes in (time, speedup):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(table.num_images))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(PLAIN)
    else:
        made.text(0.5, 0.5, "nothing is measured yet", ha="center", style="italic")
    _finish(time, "Time of one forward pass", "ms, median and 95 % interval, both axes logarithmic")
    _finish(speedup, "Speedup over our bf16 engine", "ratio of medians of one session")
    _finish(memory, "Peak memory", "GiB, loading not counted")
    return made


def _panel(
    axes: Axes,
    rows: list[SpeedRow],
    value: Callable[[Cell], tuple[float, float, float] | None],
    growth: Callable[[SpeedRow], Growth | None],
    unit: float,
    name: str,
) -> None:
    """Marks with intervals, and the fit as a line that ends where the measurements end."""
    for place, row in enumerate(rows):
        color, mark = COLORS[place % len(COLORS)], MARKS[place % len(MARKS)]
        points = [(cell.num_images, *found) for cell in row.cells if (found := value(cell))]
        numbers, middles, lows, highs = map(np.array, zip(*points, strict=True))
        fitted = growth(row)
        label = f"{printable(row.variant)}: {_formula(fitted, unit)} {name}" if fitted else printable(row.variant)
        errors = [middles - lows, highs - middles]
        axes.errorbar(
            numbers, middles, yerr=errors, color=color, marker=mark, markersize=6, linestyle="", capsize=3, label=label
        )
        if fitted:
            along = np.linspace(numbers.min(), numbers.max(), 500)
            axes.plot(along, [at(fitted, number) / unit for number in along], color=color, linewidth=1.2, alpha=0.75)


def _speedups(axes: Axes, rows: list[SpeedRow]) -> None:
    """Ratios joined by lines; what is far slower everywhere would only press the others together, and is named."""
    left_out = []
    for place, row in enumerate(rows):
        points = [(cell.num_images, cell.speedup_vs_bf16) for cell in row.cells if cell.speedup_vs_bf16]
        if points and max(ratio for _, ratio in points) < FAR_SLOWER:
            left_out.append(printable(row.variant))
        elif points:
            axes.plot(*zip(*points, strict=True), color=COLORS[place % len(COLORS)], marker=MARKS[place % len(MARKS)])
    if left_out:
        words = f"below {FAR_SLOWER} everywhere: " + ", ".join(left_out)
        axes.text(0.5, -0.16, words, transform=axes.transAxes, ha="center", va="top", fontsize=9, parse_math=False)


def _milliseconds(cell: Cell) -> tuple[float, float, float] | None:
    median = cell.latency_ms_median
    if median is None:
        return None
    return median, cell.latency_ms_low or median, cell.latency_ms_high or median


def _gibibytes(cell: Cell) -> tuple[float, float, float] | None:
    return None if cell.peak_memory_bytes is None else (cell.peak_memory_bytes / GIB,) * 3


def _formula(growth: Growth, unit: float) -> str:
    """`9.1 + 4.2 n + 0.11 n²`, terms of zero left out."""
    terms = ((growth.constant, ""), (growth.linear, " n"), (growth.quadratic, " n²"))
    return " + ".join(f"{format_number(value / unit)}{power}" for value, power in terms if value > 0)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", color=INK)
    axes.set_xlabel("images", fontsize=10, color=INK)
    axes.set_ylabel(label, fontsize=10, color=INK)
    axes.grid(which="both", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=1,
            frameon=False,
            fontsize=9,
            title="marks measured, lines fitted (n images)",
            title_fontsize=9,
        )
