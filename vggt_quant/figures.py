"""One picture of the comparison: size, time, compression and depth error, one bar a variant.

Drawn through matplotlib's objects, without pyplot and its global state. Horizontal bars, because variants have long
names. A variant without a number keeps its place as a hatched slot that says why. The colours are from Okabe and
Ito's set and differ in lightness too, and nothing is told by colour alone.
"""

import io
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vggt_quant.results import ComparisonReport, MethodRow
from vggt_quant.row_values import (
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
)
from vggt_quant.typed_json import write_bytes

BAR = "#0072B2"
REFERENCE_BAR = "#8C8C8C"
OTHER_DEVICE_BAR = "#E69F00"
SLOT_EDGE = "#B5B5B5"
INK = "#222222"
DPI = 200
LOG_SPAN = 10
"""Errors that span more than this factor are drawn on a logarithmic axis, as dots: a bar would need a zero."""
Labels = Callable[[MethodRow], str]


def comparison_plots(report: ComparisonReport, path: Path | str) -> None:
    """Write the four panels as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    comparison_figure(report).canvas.print_figure(buffer, format="png", dpi=DPI)
    write_bytes(buffer.getvalue(), path)


def comparison_figure(report: ComparisonReport) -> Figure:
    """The four panels under one title, taller with more variants."""
    height = 2.2 + 2 * (0.9 + 0.36 * max(3, len(report.methods)))
    figure = Figure(figsize=(14, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12, wspace=0.03, hspace=0.03)
    panels = figure.subplots(2, 2)
    for axes, draw in zip(panels.flat, (plot_size, plot_time, plot_compression, plot_depth_error), strict=True):
        draw(axes, report)
    title, subtitle = _titles(report)
    figure.suptitle(f"{title}\n{subtitle}", fontsize=13, color=INK, parse_math=False)
    return figure


def plot_size(axes: Axes, report: ComparisonReport) -> None:
    """Checkpoint size, in GB if the largest has one."""
    sizes = [checkpoint_bytes(row) or 0 for row in report.methods]
    unit, scale = ("GB", 1e9) if max(sizes, default=0) >= 1e9 else ("MB", 1e6)
    values = [size / scale if size else None for size in sizes]
    _bars(axes, report.methods, values, [f"{format_number(value)} {unit}" for value in values])
    _finish(axes, report.methods, "Checkpoint size", f"{unit} on disk, smaller is better")


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
    _bars(axes, rows, times, texts, limit=limit, marked=is_elsewhere, ends=[box[1] if box else 0 for box in boxes])
    for place, (time, box, elsewhere) in enumerate(zip(times, boxes, is_elsewhere, strict=True)):
        if box and time and not elsewhere:
            axes.errorbar(time, place, xerr=[[time - box[0]], [box[1] - time]], color=INK, capsize=3, linewidth=1.2)
    _finish(axes, rows, "Time of one forward pass", "ms, median and middle half of the runs, less is better")


def plot_compression(axes: Axes, report: ComparisonReport) -> None:
    """How many times smaller the checkpoint is than that of fp32."""
    values = [row.compression_vs_fp32 for row in report.methods]
    _bars(axes, report.methods, values, [f"{format_number(value)}x" for value in values])
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0.5)
    _finish(axes, report.methods, "Compression", "times smaller than fp32 on disk, more is better")


def plot_depth_error(axes: Axes, report: ComparisonReport) -> None:
    """AbsRel of the depth maps against fp32; logarithmic where it spans decades."""
    rows = report.methods
    values = [depth_abs_rel(row) for row in rows]
    positive = [value for value in values if value]
    is_log = bool(positive) and max(positive) > LOG_SPAN * min(positive)
    texts = [_depth_text(row, value) for row, value in zip(rows, values, strict=True)]
    if is_log:
        _dots(axes, rows, values, texts)
    else:
        _bars(axes, rows, values, texts)
    title = "Depth error vs fp32"
    if is_random(report):
        title += " (random weights)"
    meaning = "shows the arithmetic, not the quality" if is_random(report) else "less is better"
    _finish(axes, rows, title, f"AbsRel{', log scale' if is_log else ''}, {meaning}")


def _depth_text(row: MethodRow, value: float | None) -> str:
    if row.variant == REFERENCE_VARIANT and not value:
        return "reference"
    return "0 (identical)" if value == 0 else format_number(value)


def _bars(
    axes: Axes,
    rows: list[MethodRow],
    values: list[float | None],
    texts: list[str],
    *,
    limit: float | None = None,
    marked: list[bool] | None = None,
    ends: list[float] | None = None,
) -> None:
    """A bar and its text per row.

    Args:
        axes: The panel.
        rows: One place each, from the top.
        values: Length of the bar; None leaves the slot empty.
        texts: What stands right of the bar.
        limit: Right edge of the panel.
        marked: Whether the bar is of another kind, drawn so, and cut at `limit`.
        ends: Where the text starts if that is beyond the bar, e.g. behind a whisker.
    """
    limit = limit or 1.32 * (max((value for value in values if value), default=0.0) or 1.0)
    marked, ends = marked or [False] * len(rows), ends or [0.0] * len(rows)
    axes.set_xlim(0, limit)
    for place, (row, value, text, mark, end) in enumerate(zip(rows, values, texts, marked, ends, strict=True)):
        if value is None:
            _empty_slot(axes, place, row)
            continue
        color = OTHER_DEVICE_BAR if mark else REFERENCE_BAR if row.variant == REFERENCE_VARIANT else BAR
        length = min(value, limit)
        axes.barh(place, length, height=0.62, color=color, hatch="//" if mark else None, edgecolor="white")
        if mark and value > 0.5 * limit:  # no room on the right for a text this long
            _centred_text(axes, place, f"{text} →" if value > limit else text)
        else:
            _value_label(axes, place, max(length, end) / limit, text)


def _dots(axes: Axes, rows: list[MethodRow], values: list[float | None], texts: list[str]) -> None:
    """A dot on a stem per row, on a logarithmic axis; zeros are text only."""
    positive = [value for value in values if value]
    low, high = min(positive) / 3, max(positive)
    high *= (high / low) ** 0.35  # room for the text on the right
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    for place, (row, value, text) in enumerate(zip(rows, values, texts, strict=True)):
        if value is None:
            _empty_slot(axes, place, row)
            continue
        if value > 0:
            axes.plot([low, value], [place, place], color=BAR, linewidth=2, alpha=0.45, solid_capstyle="butt")
            axes.plot([value], [place], marker="o", markersize=8, color=BAR)
        x, _ = axes.transAxes.inverted().transform(axes.transData.transform((value or low, place)))
        _value_label(axes, place, x + (0.008 if value else 0), text)


def _value_label(axes: Axes, place: int, x: float, text: str) -> None:
    """Text right of a bar that ends at `x`, a share of the panel's width."""
    axes.annotate(
        text,
        (x, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9.5,
        color=INK,
        parse_math=False,
    )


def _empty_slot(axes: Axes, place: int, row: MethodRow) -> None:
    """A hatched bar over the whole width that says why there is no number."""
    transform = axes.get_yaxis_transform()
    axes.barh(
        place, 1, height=0.62, color="white", hatch="////", edgecolor=SLOT_EDGE, linewidth=0.6, transform=transform
    )
    _centred_text(axes, place, row.outcome if row.outcome != "ok" else "no number", style="italic")


def _centred_text(axes: Axes, place: int, text: str, style: str = "normal") -> None:
    """Text in the middle of the panel, on white so that it stays readable over a hatch."""
    axes.text(
        0.5,
        place,
        text,
        transform=axes.get_yaxis_transform(),
        ha="center",
        va="center",
        fontsize=9.5,
        style=style,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.5},
        parse_math=False,
    )


def _finish(axes: Axes, rows: list[MethodRow], title: str, label: str) -> None:
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", color=INK)
    axes.set_xlabel(label, fontsize=9.5, color=INK)
    axes.set_yticks(range(len(rows)), [_printable(row.variant) for row in rows], fontsize=10, parse_math=False)
    axes.set_ylim(len(rows) - 0.4 if rows else 1, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not rows:
        axes.text(0.5, 0.5, "no variants", transform=axes.transAxes, ha="center", va="center", style="italic")


def _titles(report: ComparisonReport) -> tuple[str, str]:
    label = _printable(report.model.label) if report.model else "unknown model"
    parts = []
    if report.images:
        count, _, height, width = report.images.shape
        parts.append(f"{count} images of {height} x {width}")
    device = main_device(report.methods)
    if device:
        parts.append(_printable(device))
    finished = sum(row.outcome == "ok" for row in report.methods)
    parts.append(
        f"{finished} of {len(report.methods)} variants finished{' (partial report)' if report.partial else ''}"
    )
    return f"VGGT quantization: {label}", "  |  ".join(parts)


def _printable(text: str) -> str:
    """Only characters that the font has: a missing one would be drawn as an empty box."""
    return text.encode("ascii", "replace").decode()
