"""The description of a metric: name, format and direction of its figures. Result files hold it with the figures."""

from typing import Literal

from vggt_quant.results.record import Measured, Record

Group = Literal["deviation", "truth"]
"""What a variant is compared with: the float32 outputs, or the ground truth of the scenes."""
Figures = dict[str, Measured]
"""Metric -> its figure in one scene; null where it could not be had."""


class Metric(Record, frozen=True, kw_only=True):
    """How one metric is named, printed and judged."""

    title: str
    """As in tables and sentences: `pose AUC@30`."""
    meaning: str
    """One sentence on what the figure is."""
    better: Literal["up", "down"] | None = None
    """Whether more or less is better; null for a figure that is not a quality, such as a count."""
    is_count: bool = False
    """A number of things, of which no mean over scenes is taken."""
    unit: str = ""
    """Of the printed figure: `%`, `cm`."""
    difference_unit: str = ""
    """Of a printed difference, where it is another: `points` for per cent."""
    scale: float = 1.0
    """The printed figure is the value times this: 100 prints a share in per cent, metres in centimetres."""
    decimals: int | None = None
    """Of the printed figure; null prints three digits."""
    column: int | None = None
    """Rank among the columns of the summary's tables, and so among what the recommendation looks at; null: neither."""
    legend: str = ""
    """A sentence below the table; several columns may share one."""
    panel: str | None = None
    """Title of the panel of the figure that draws it, which several metrics may share; null: not drawn."""
    control_of: str | None = None
    """The metric that this is a control of: the figure of an answer that has seen no photo."""


Metrics = dict[Group, dict[str, Metric]]
"""Group -> name of the metric -> what it is."""


def percent(
    title: str,
    meaning: str,
    *,
    better: Literal["up", "down"],
    of: str = "",
    column: int | None = None,
    legend: str = "",
    panel: str | None = None,
    control_of: str | None = None,
) -> Metric:
    """A share from 0 to 1, or an error relative to `of`, printed in per cent."""
    return Metric(
        title=title,
        meaning=meaning,
        better=better,
        unit=f"% {of}".strip(),
        difference_unit="points",
        scale=100,
        decimals=1,
        column=column,
        legend=legend,
        panel=panel,
        control_of=control_of,
    )


def centimetres(title: str, meaning: str, *, column: int | None = None, legend: str = "") -> Metric:
    """A distance in metres, printed in centimetres; less is better."""
    return Metric(
        title=title, meaning=meaning, better="down", unit="cm", scale=100, decimals=1, column=column, legend=legend
    )


def degrees(title: str, meaning: str, *, column: int | None = None) -> Metric:
    """An angle in degrees; less is better."""
    return Metric(title=title, meaning=meaning, better="down", unit="deg", column=column)


def columns(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """The metrics that have a column, in the order of the columns."""
    shown = {name: metric for name, metric in metrics.items() if metric.column is not None}
    return dict(sorted(shown.items(), key=lambda item: (item[1].column or 0, item[0])))


def panels(metrics: dict[str, Metric]) -> dict[str, dict[str, Metric]]:
    """Title of a panel -> the metrics that it draws, both in the order of the columns."""
    drawn: dict[str, dict[str, Metric]] = {}
    for name, metric in {**columns(metrics), **metrics}.items():
        if metric.panel is not None:
            drawn.setdefault(metric.panel, {})[name] = metric
    return drawn


def last_digit(metric: Metric) -> float:
    """The value of the last printed digit: a smaller difference is treated as none, even if it is significant."""
    return 0.0 if metric.decimals is None else 10**-metric.decimals / metric.scale
