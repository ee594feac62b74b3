"""One picture of the comparison: size, time, compression, deviation and distance from the truth, by variant.

Drawn through matplotlib's objects, without pyplot and its global state. Horizontal bars, because variants have long
names.
"""

import io
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vggt_quant.report.bars import (
    BAR,
    INK,
    SECOND_SERIES,
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
    depth_abs_rel,
    format_number,
    is_on_other_device,
    is_random,
    latency_box_ms,
    latency_ms,
    main_device,
    speed_kind,
    truth_scenes,
)
from vggt_quant.results.files import write_bytes
from vggt_quant.results.schema import ComparisonReport, ImagesResult, MethodRow

DPI = 200
LOG_SPAN = 10
"""Errors that span more than this factor are drawn on a logarithmic axis, as dots: a bar would need a zero."""
Labels = Callable[[MethodRow], str]


def comparison_plots(report: ComparisonReport, path: Path | str) -> None:
    """Write the panels as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    comparison_figure(report).canvas.print_figure(buffer, format="png", dpi=DPI)
    write_bytes(buffer.getvalue(), path)


def comparison_figure(report: ComparisonReport) -> Figure:
    """The panels under one title, taller with more variants; two more where a ground truth is known."""
    draws = [plot_size, plot_time, plot_compression, plot_depth_error]
    if any(row.truth for row in report.methods) and not is_random(report):
        draws += [plot_pose_truth, plot_depth_truth]
    num_lines = len(draws) // 2
    height = 2.2 + num_lines * (0.9 + 0.36 * max(3, len(report.methods)))
    figure = Figure(figsize=(14, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12, wspace=0.03, hspace=0.03)
    panels = figure.subplots(num_lines, 2)
    for axes, draw in zip(panels.flat, draws, strict=True):
        draw(axes, report)
    title, subtitle = _titles(report)
    figure.suptitle(f"{title}\n{subtitle}", fontsize=13, color=INK, parse_math=False)
    return figure


def plot_size(axes: Axes, report: ComparisonReport) -> None:
    """Checkpoint size, in GB if the largest has one."""
    sizes = [checkpoint_bytes(row) or 0 for row in report.methods]
    unit, scale = ("GB", 1e9) if max(sizes, default=0) >= 1e9 else ("MB", 1e6)
    values = [size / scale if size else None for size in sizes]
    bars(axes, report.methods, values, [f"{format_number(value)} {unit}" for value in values])
    finish(axes, report.methods, "Checkpoint size", f"{unit} on disk, smaller is better")


def plot_time(axes: Axes, report: ComparisonReport) -> None:
    """Median latency with the middle half of the runs; a row of another device is cut at the edge of the panel."""
    rows = report.methods
    is_elsewhere = [is_on_other_device(row, rows) for row in rows]
    times = [latency_ms(row) for row in rows]
    boxes = [latency_box_ms(row) for row in rows]
    here = [box[1] for box, elsewhere in zip(boxes, is_elsewhere, strict=True) if box and not elsewhere]
    limit = 1.32 * max(here, default=1.0)
    texts = []
    for row, time, elsewhere in zip(rows, times, is_elsewhere, strict=True):
        where = f" on {speed_kind(row)}, another device" if elsewhere else ""
        texts.append(f"{format_number(time)} ms{where}")
    bars(axes, rows, times, texts, limit=limit, marked=is_elsewhere, ends=[box[1] if box else 0 for box in boxes])
    for place, (time, box, elsewhere) in enumerate(zip(times, boxes, is_elsewhere, strict=True)):
        if box and time and not elsewhere:
            whisker(axes, place, time, *box)
    finish(axes, rows, "Time of one forward pass", "ms, median and middle half of the runs, less is better")


def plot_compression(axes: Axes, report: ComparisonReport) -> None:
    """How many times smaller the checkpoint is than that of fp32."""
    values = [row.compression_vs_fp32 for row in report.methods]
    bars(axes, report.methods, values, [f"{format_number(value)}x" for value in values])
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0.5)
    finish(axes, report.methods, "Compression", "times smaller than fp32 on disk, more is better")


def plot_depth_error(axes: Axes, report: ComparisonReport) -> None:
    """AbsRel of the depth maps against fp32; logarithmic where it spans decades."""
    rows = report.methods
    values = [depth_abs_rel(row) for row in rows]
    positive = [value for value in values if value]
    is_log = bool(positive) and max(positive) > LOG_SPAN * min(positive)
    texts = [_depth_text(row, value) for row, value in zip(rows, values, strict=True)]
    if is_log:
        dots(axes, rows, values, texts)
    else:
        bars(axes, rows, values, texts)
    title = "Depth error vs fp32"
    if is_random(report):
        title += " (random weights)"
    meaning = "shows the arithmetic, not the quality" if is_random(report) else "less is better"
    finish(axes, rows, title, f"AbsRel{', log scale' if is_log else ''}, {meaning}")


def plot_pose_truth(axes: Axes, report: ComparisonReport) -> None:
    """AUC@30 and AUC@5 of the camera poses against the ground truth, with intervals over scenes."""
    rows = report.methods
    axes.set_xlim(0, 118)  # room for the text behind a whisker that ends at 100
    loose = [row.truth.get("pose_auc_30") for row in rows]
    tight = [row.truth.get("pose_auc_5") for row in rows]
    series(axes, rows, loose, color=BAR, marker="o", shift=-0.2)
    series(axes, rows, tight, color=SECOND_SERIES, marker="s", shift=0.2)
    for place, (row, *estimates) in enumerate(zip(rows, loose, tight, strict=True)):
        if not any(estimates):
            empty_slot(axes, place, row)
    finish(axes, rows, "Cameras vs ground truth", f"\u25cf AUC@30  \u25a0 AUC@5, %, more is better, {_whiskers(rows)}")


def plot_depth_truth(axes: Axes, report: ComparisonReport) -> None:
    """AbsRel of the depth maps against the ground truth, with intervals over scenes."""
    rows = report.methods
    estimates = [row.truth.get("depth_abs_rel") for row in rows]
    values = [100 * estimate.mean if estimate else None for estimate in estimates]
    ends = [100 * (estimate.high or estimate.mean) if estimate else 0.0 for estimate in estimates]
    limit = 1.32 * (max(ends, default=0.0) or 1.0)
    texts = [f"{100 * estimate.mean:.1f} %{noise_mark(estimate)}" if estimate else "" for estimate in estimates]
    bars(axes, rows, values, texts, limit=limit, ends=ends)
    for place, estimate in enumerate(estimates):
        if estimate and estimate.low is not None and estimate.high is not None:
            whisker(axes, place, 100 * estimate.mean, 100 * estimate.low, 100 * estimate.high)
    finish(axes, rows, "Depth vs ground truth", f"AbsRel, %, less is better, {_whiskers(rows)}")


def _whiskers(rows: list[MethodRow]) -> str:
    """What the whiskers and the mark of a panel against the ground truth mean."""
    estimates = [estimate for row in rows for estimate in row.truth.values()]
    scenes = len(truth_scenes(rows))
    whiskers = f"mean and 95 % interval over {scenes} scenes" if scenes > 1 else "one scene"
    is_compared = any(estimate.within_noise is not None for estimate in estimates)
    return whiskers + ("\n~ no different from fp32 within the noise, compared scene by scene" if is_compared else "")


def _depth_text(row: MethodRow, value: float | None) -> str:
    if row.variant == REFERENCE_VARIANT and not value:
        return "reference"
    return "0 (identical)" if value == 0 else format_number(value)


def _titles(report: ComparisonReport) -> tuple[str, str]:
    label = printable(report.model.label) if report.model else "unknown model"
    parts = []
    if report.images:
        parts.append(_describe_images(report.images))
    device = main_device(report.methods)
    if device:
        parts.append(printable(device))
    finished = sum(row.outcome == "ok" for row in report.methods)
    parts.append(
        f"{finished} of {len(report.methods)} variants finished{' (partial report)' if report.partial else ''}"
    )
    return f"VGGT quantization: {label}", "  |  ".join(parts)


def _describe_images(images: ImagesResult) -> str:
    count, _, height, width = images.scenes[0].shape
    if len(images.scenes) == 1:
        return f"{count} images of {height} x {width}"
    return f"{len(images.scenes)} scenes (time: {count} images of {height} x {width})"
