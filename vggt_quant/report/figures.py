"""One picture of the comparison: size, time, compression, deviation and distance from the truth, by variant.

Drawn through matplotlib's objects, without pyplot and its global state. Horizontal bars, because variants have long
names.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vggt_quant.report.bars import (
    INK,
    LOOKS,
    bars,
    dots,
    empty_slot,
    finish,
    noise_mark,
    printable,
    series,
    whisker,
)
from vggt_quant.report.rows import (
    REFERENCE_VARIANT,
    checkpoint_bytes,
    deviation,
    format_number,
    is_on_other_device,
    is_random,
    latency_box_ms,
    latency_ms,
    main_device,
    printed,
    timed,
    truth_scenes,
)
from vggt_quant.results.files import write_bytes
from vggt_quant.results.metric import Metric, panels
from vggt_quant.results.report_schema import ComparisonReport, Estimate, VariantRow
from vggt_quant.results.scenes_in_words import timed_in_words

DPI = 200
LOG_SPAN = 10
"""Errors that span more than this factor are drawn on a logarithmic axis, as dots: a bar would need a zero."""
BETTER = {"up": ", more is better", "down": ", less is better", None: ""}
MARKS = {"o": "\u25cf", "s": "\u25a0", "^": "\u25b2", "D": "\u25c6"}
Draw = Callable[[Axes, ComparisonReport], None]


def comparison_plots(report: ComparisonReport, path: Path | str) -> None:
    """Write the panels as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    comparison_figure(report).canvas.print_figure(buffer, format="png", dpi=DPI)
    write_bytes(buffer.getvalue(), path)


def comparison_figure(report: ComparisonReport) -> Figure:
    """The panels under one title, taller with more variants; some more where a ground truth is known."""
    draws = _panels(report)
    num_lines = (len(draws) + 1) // 2
    height = 2.2 + num_lines * (0.9 + 0.36 * max(3, len(report.variants)))
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(14, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_lines, 2)
    for axes, draw in zip(grid.flat, draws, strict=False):
        draw(axes, report)
    for axes in grid.flat[len(draws) :]:
        axes.set_visible(False)
    title, subtitle = _titles(report)
    figure.suptitle(f"{title}\n{subtitle}", fontsize=13, color=INK, parse_math=False)
    return figure


def _panels(report: ComparisonReport) -> list[Draw]:
    """Size, time and compression, then what the metrics ask for."""
    deviation_panels = panels(report.metrics.get("deviation", {}))
    draws: list[Draw] = [plot_size, plot_time, plot_compression]
    draws += [partial(plot_deviation, title=title, shown=shown) for title, shown in deviation_panels.items()]
    if any(row.truth for row in report.variants) and not is_random(report):
        truth_panels = panels(report.metrics.get("truth", {}))
        draws += [partial(plot_truth, title=title, shown=shown) for title, shown in truth_panels.items()]
    return draws


def plot_size(axes: Axes, report: ComparisonReport) -> None:
    """Checkpoint size, in GB if the largest has one."""
    sizes = [checkpoint_bytes(row) or 0 for row in report.variants]
    unit, scale = ("GB", 1e9) if max(sizes, default=0) >= 1e9 else ("MB", 1e6)
    values = [size / scale if size else None for size in sizes]
    bars(axes, report.variants, values, [f"{format_number(value)} {unit}" for value in values])
    finish(axes, report.variants, "Checkpoint size", f"{unit} on disk, smaller is better")


def plot_time(axes: Axes, report: ComparisonReport) -> None:
    """Median latency with the middle half of the runs; a row of another device is cut at the edge of the panel."""
    rows = report.variants
    is_elsewhere = [is_on_other_device(row, rows) for row in rows]
    times = [latency_ms(row) for row in rows]
    boxes = [latency_box_ms(row) for row in rows]
    here = [box[1] for box, elsewhere in zip(boxes, is_elsewhere, strict=True) if box and not elsewhere]
    limit = 1.32 * max(here, default=1.0)
    texts = []
    for row, time, elsewhere in zip(rows, times, is_elsewhere, strict=True):
        speed = timed(row)
        where = f" on {speed.provenance.device}, another device" if speed and elsewhere else ""
        texts.append(f"{format_number(time)} ms{where}")
    bars(axes, rows, times, texts, limit=limit, marked=is_elsewhere, ends=[box[1] if box else 0 for box in boxes])
    for place, (time, box, elsewhere) in enumerate(zip(times, boxes, is_elsewhere, strict=True)):
        if box and time and not elsewhere:
            whisker(axes, place, time, *box)
    finish(axes, rows, "Time of one forward pass", "ms, median and middle half of the runs, less is better")


def plot_compression(axes: Axes, report: ComparisonReport) -> None:
    """How many times smaller the checkpoint is than that of fp32."""
    values = [row.compression_vs_fp32 for row in report.variants]
    bars(axes, report.variants, values, [f"{format_number(value)}x" for value in values])
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0.5)
    finish(axes, report.variants, "Compression", "times smaller than fp32 on disk, more is better")


def plot_deviation(axes: Axes, report: ComparisonReport, *, title: str, shown: dict[str, Metric]) -> None:
    """A deviation from fp32, the first of those of the panel; logarithmic where it spans decades."""
    (name, metric), rows = next(iter(shown.items())), report.variants
    values = [deviation(row, name) for row in rows]
    positive = [value for value in values if value]
    is_log = bool(positive) and max(positive) > LOG_SPAN * min(positive)
    texts = [_deviation_text(row, value) for row, value in zip(rows, values, strict=True)]
    draw = dots if is_log else bars
    draw(axes, rows, values, texts)
    meaning = ", shows the arithmetic, not the quality" if is_random(report) else BETTER[metric.better]
    unit = f", {metric.unit}" if metric.unit else ""
    label = f"{metric.title}{unit}{', log scale' if is_log else ''}{meaning}"
    finish(axes, rows, f"{title} (random weights)" if is_random(report) else title, label)


def plot_truth(axes: Axes, report: ComparisonReport, *, title: str, shown: dict[str, Metric]) -> None:
    """Metrics against the ground truth, with intervals over scenes: bars for one, dots for several."""
    draw = _truth_bars if len(shown) == 1 else _truth_dots
    draw(axes, report.variants, shown)
    first = next(iter(shown.values()))
    titles = [metric.title for metric in shown.values()]
    if len(shown) > 1:
        titles = [f"{MARKS[mark]} {name}" for name, (_, mark) in zip(titles, LOOKS, strict=False)]
    unit = f", {first.unit}" if first.unit else ""
    finish(
        axes, report.variants, title, f"{'  '.join(titles)}{unit}{BETTER[first.better]}, {_whiskers(report.variants)}"
    )


def _truth_dots(axes: Axes, rows: list[VariantRow], shown: dict[str, Metric]) -> None:
    axes.set_xlim(0, _limit(rows, shown))
    step = 0.4 / (len(shown) - 1)
    for index, ((name, metric), look) in enumerate(zip(shown.items(), LOOKS, strict=False)):
        series(axes, rows, name, metric, look=look, shift=step * index - 0.2)
    for place, row in enumerate(rows):
        if not any(name in row.truth for name in shown):
            empty_slot(axes, place, row)


def _truth_bars(axes: Axes, rows: list[VariantRow], shown: dict[str, Metric]) -> None:
    ((name, metric),) = shown.items()
    estimates = [row.truth.get(name) for row in rows]
    values = [metric.scale * estimate.mean if estimate else None for estimate in estimates]
    ends = [metric.scale * (estimate.high or estimate.mean) if estimate else 0.0 for estimate in estimates]
    texts = [_bar_text(estimate, metric) if estimate else "" for estimate in estimates]
    bars(axes, rows, values, texts, limit=1.32 * (max(ends, default=0.0) or 1.0), ends=ends)
    for place, estimate in enumerate(estimates):
        if estimate and estimate.low is not None and estimate.high is not None:
            whisker(axes, place, *(metric.scale * end for end in (estimate.mean, estimate.low, estimate.high)))


def _bar_text(estimate: Estimate, metric: Metric) -> str:
    return f"{printed(estimate.mean, metric)} {metric.unit}".rstrip() + noise_mark(estimate, metric)


def _limit(rows: list[VariantRow], shown: dict[str, Metric]) -> float:
    """Right edge of a panel of dots, with room for the text of a whisker that ends at 100 %."""
    if all(metric.unit == "%" and metric.better == "up" for metric in shown.values()):
        return 118.0
    estimates = [(row.truth.get(name), metric.scale) for row in rows for name, metric in shown.items()]
    ends = [scale * (estimate.high or estimate.mean) for estimate, scale in estimates if estimate]
    return 1.32 * (max(ends, default=0.0) or 1.0)


def _whiskers(rows: list[VariantRow]) -> str:
    """What the whiskers and the mark of a panel against the ground truth mean."""
    estimates = [estimate for row in rows for estimate in row.truth.values()]
    scenes = len(truth_scenes(rows))
    whiskers = f"mean and 95 % interval over {scenes} scenes" if scenes > 1 else "one scene"
    is_compared = any(estimate.within_noise is not None for estimate in estimates)
    return whiskers + ("\n~ not significantly different from fp32, compared scene by scene" if is_compared else "")


def _deviation_text(row: VariantRow, value: float | None) -> str:
    if row.variant == REFERENCE_VARIANT and not value:
        return "reference"
    return "0 (identical)" if value == 0 else format_number(value)


def _titles(report: ComparisonReport) -> tuple[str, str]:
    label = printable(report.model.label) if report.model else "unknown model"
    parts = []
    if report.images:
        parts.append(timed_in_words(report.images))
    device = main_device(report.variants)
    if device:
        parts.append(printable(device))
    finished = sum(row.outcome == "ok" for row in report.variants)
    parts.append(
        f"{finished} of {len(report.variants)} variants finished{' (partial report)' if report.partial else ''}"
    )
    return f"VGGT quantization: {label}", "  |  ".join(parts)
