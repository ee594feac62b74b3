"""The parts of a panel: bars, dots, whiskers and slots, one row per variant.

A variant without a figure keeps its row, as a hatched slot with the reason. The colours are from Okabe and Ito's set
and differ in lightness, too, and no information is in colour alone.
"""

from matplotlib.axes import Axes

from vggt_quant.report.rows import REFERENCE_VARIANT, is_as_fp32, printed
from vggt_quant.results.metric import Metric
from vggt_quant.results.report_schema import Estimate, VariantRow

BAR = "#0072B2"
REFERENCE_BAR = "#8C8C8C"
OTHER_DEVICE_BAR = "#E69F00"
SLOT_EDGE = "#B5B5B5"
INK = "#222222"
LOOKS = ((BAR, "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
"""Colour and mark of the series of a panel."""
Look = tuple[str, str]


def bars(
    axes: Axes,
    rows: list[VariantRow],
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
        ends: Where the text starts if that is beyond the bar, e.g. after a whisker.
    """
    limit = limit or 1.32 * (max((value for value in values if value), default=0.0) or 1.0)
    marked, ends = marked or [False] * len(rows), ends or [0.0] * len(rows)
    axes.set_xlim(0, limit)
    for place, (row, value, text, mark, end) in enumerate(zip(rows, values, texts, marked, ends, strict=True)):
        if value is None:
            empty_slot(axes, place, row)
            continue
        color = OTHER_DEVICE_BAR if mark else REFERENCE_BAR if row.variant == REFERENCE_VARIANT else BAR
        length = min(value, limit)
        axes.barh(place, length, height=0.62, color=color, hatch="//" if mark else None, edgecolor="white")
        if mark and value > 0.5 * limit:  # no room on the right for a text this long
            centred_text(axes, place, f"{text} →" if value > limit else text)
        else:
            value_label(axes, place, max(length, end) / limit, text)


def dots(axes: Axes, rows: list[VariantRow], values: list[float | None], texts: list[str]) -> None:
    """A dot on a stem per row, on a logarithmic axis; zeros are text only."""
    positive = [value for value in values if value]
    low, high = min(positive) / 3, max(positive)
    high *= (high / low) ** 0.35  # room for the text on the right
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    for place, (row, value, text) in enumerate(zip(rows, values, texts, strict=True)):
        if value is None:
            empty_slot(axes, place, row)
            continue
        if value > 0:
            axes.plot([low, value], [place, place], color=BAR, linewidth=2, alpha=0.45, solid_capstyle="butt")
            axes.plot([value], [place], marker="o", markersize=8, color=BAR)
        x, _ = axes.transAxes.inverted().transform(axes.transData.transform((value or low, place)))
        value_label(axes, place, x + (0.008 if value else 0), text)


def whisker(axes: Axes, place: float, value: float, low: float, high: float) -> None:
    """A line from `low` to `high` with short ends, over the bar or dot of `value`."""
    axes.errorbar(value, place, xerr=[[value - low], [high - value]], color=INK, capsize=3, linewidth=1.2)


def series(axes: Axes, rows: list[VariantRow], name: str, metric: Metric, *, look: Look, shift: float) -> None:
    """A dot with its interval and its mean per row.

    Args:
        axes: The panel, whose limits are set.
        rows: One place each, from the top.
        name: Of the metric; a row without an estimate of it is left to `empty_slot`.
        metric: How its figures are printed.
        look: Colour and shape of the dots; the shape distinguishes two series without colour.
        shift: How far below the middle of its place a dot stands.
    """
    color, marker = look
    for place, row in enumerate(rows):
        estimate = row.truth.get(name)
        if estimate is None:
            continue
        value, end = metric.scale * estimate.mean, metric.scale * (estimate.high or estimate.mean)
        if estimate.low is not None:
            whisker(axes, place + shift, value, metric.scale * estimate.low, end)
        is_reference = row.variant == REFERENCE_VARIANT
        axes.plot([value], [place + shift], marker=marker, markersize=7, color=REFERENCE_BAR if is_reference else color)
        text = f"{printed(estimate.mean, metric)}{noise_mark(estimate, metric)}"
        value_label(axes, place + shift, end / axes.get_xlim()[1], text)


def noise_mark(estimate: Estimate, metric: Metric) -> str:
    """Marks a figure that does not differ significantly from fp32's: intervals overlap where differences do not."""
    return " ~" if is_as_fp32(estimate, metric) else ""


def value_label(axes: Axes, place: float, x: float, text: str) -> None:
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


def empty_slot(axes: Axes, place: int, row: VariantRow) -> None:
    """A hatched bar over the whole width, with the reason why there is no figure."""
    transform = axes.get_yaxis_transform()
    axes.barh(
        place, 1, height=0.62, color="white", hatch="////", edgecolor=SLOT_EDGE, linewidth=0.6, transform=transform
    )
    centred_text(axes, place, row.outcome if row.outcome != "ok" else "no number", style="italic")


def centred_text(axes: Axes, place: int, text: str, style: str = "normal") -> None:
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


def finish(axes: Axes, rows: list[VariantRow], title: str, label: str) -> None:
    """Title, axes and names; the last thing that is done to a panel."""
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", color=INK)
    axes.set_xlabel(label, fontsize=9.5, color=INK)
    axes.set_yticks(range(len(rows)), [printable(row.variant) for row in rows], fontsize=10, parse_math=False)
    axes.set_ylim(len(rows) - 0.4 if rows else 1, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not rows:
        axes.text(0.5, 0.5, "no variants", transform=axes.transAxes, ha="center", va="center", style="italic")


def printable(text: str) -> str:
    """Only characters that the font has: a missing one would be drawn as an empty box."""
    return text.encode("ascii", "replace").decode()
