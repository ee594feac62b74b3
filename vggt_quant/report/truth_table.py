"""The part of the summary that compares variants with the ground truth: means, intervals, and `~` for not significant.

The metrics in the result files define the columns, their order and how figures are printed.
"""

from vggt_quant.report.rows import REFERENCE_VARIANT, is_as_fp32, is_random, printed, truth_scenes
from vggt_quant.report.text_table import WIDTH, lay_out
from vggt_quant.results.intervals import FEWEST_SCENES
from vggt_quant.results.metric import Metric, columns
from vggt_quant.results.report_schema import ComparisonReport, Estimate

SAME_AS_FP32 = "~"
ARROWS = {"up": "↑", "down": "↓", None: " "}
SHORTEST_NAME = 12
"""Names are shortened to this length before a column moves to a second table."""
NARROW = 4
"""An interval at least this wide, in the printed unit, is printed without its last digit."""


def truth_section(report: ComparisonReport) -> list[str]:
    """Title, table and legend; nothing where no ground truth is known."""
    num_scenes = len(truth_scenes(report.variants))
    if not num_scenes:
        return []
    if is_random(report):
        return ["The ground truth is known, but random weights have learnt nothing: no variant is compared with it."]
    shown = shown_metrics(report)
    return [_title(num_scenes), "", *_tables(report, shown), *_legend(report, shown, num_scenes)]


def shown_metrics(report: ComparisonReport) -> dict[str, Metric]:
    """The metrics with a column that any variant has an estimate of, in the order of the columns."""
    metrics = columns(report.metrics.get("truth", {}))
    return {name: metric for name, metric in metrics.items() if any(name in row.truth for row in report.variants)}


def _title(num_scenes: int) -> str:
    if num_scenes < FEWEST_SCENES:
        scenes = "one scene" if num_scenes == 1 else f"{num_scenes} scenes"
        warning = f"below {FEWEST_SCENES} there are no intervals: do not read much into small differences"
        return f"Against the ground truth of {scenes} ({warning})"
    return f"Against the ground truth of {num_scenes} scenes: mean [95 % interval over the scenes]"


def _tables(report: ComparisonReport, shown: dict[str, Metric]) -> list[str]:
    """One table, or several below each other where its columns do not fit side by side."""
    controls = _controls(report, shown)
    names = ["", "variant", *(row.variant for row in report.variants), *controls]
    cells = [_cells(name, metric, report, controls) for name, metric in shown.items()]
    lines: list[str] = []
    for group in _fitting(cells, WIDTH - min(SHORTEST_NAME, max(map(len, names))) - 2):
        lines += [""] if lines else []
        lines += lay_out(names, [list(line) for line in zip(*group, strict=True)], [""] * len(names), header=2)
    return lines


def _fitting(cells: list[list[str]], room: int) -> list[list[list[str]]]:
    """The columns in groups that are each no wider than `room`."""
    groups: list[list[list[str]]] = []
    used = room
    for column in cells:
        width = 1 + max(map(len, column))
        if not groups or used + width > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += width
    return groups


def _controls(report: ComparisonReport, shown: dict[str, Metric]) -> dict[str, dict[str, Estimate]]:
    """Title of a row that no model made -> the metric it stands for -> its figure."""
    controls: dict[str, dict[str, Estimate]] = {}
    for name, metric in report.metrics.get("truth", {}).items():
        made = next((row.truth[name] for row in report.variants if name in row.truth), None)
        if made and metric.control_of in shown:
            controls.setdefault(metric.title, {})[str(metric.control_of)] = made
    return controls


def _cells(name: str, metric: Metric, report: ComparisonReport, controls: dict[str, dict[str, Estimate]]) -> list[str]:
    """A column: title, unit, a cell for each variant and for each control."""
    estimates = [row.truth.get(name) for row in report.variants]
    digits = metric.decimals
    if digits and any(_width(estimate, metric) >= NARROW for estimate in estimates if estimate):
        digits -= 1
    estimates += [figures.get(name) for figures in controls.values()]
    title = f"{ARROWS[metric.better]} {metric.title}".strip()
    return [title, metric.unit, *(_cell(estimate, metric, digits) for estimate in estimates)]


def _width(estimate: Estimate, metric: Metric) -> float:
    return 0.0 if estimate.low is None or estimate.high is None else metric.scale * (estimate.high - estimate.low)


def _cell(estimate: Estimate | None, metric: Metric, digits: int | None) -> str:
    """`76.1 [70–82]~`; the place of the mark stays empty without it, so that figures stand below each other."""
    if estimate is None:
        return "- "
    mark = SAME_AS_FP32 if is_as_fp32(estimate, metric) else " "
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        low, high = (printed(end, metric, digits) for end in (estimate.low, estimate.high))
        interval = f" [{low}–{high}]"
    return f"{printed(estimate.mean, metric)}{interval}{mark}"


def _legend(report: ComparisonReport, shown: dict[str, Metric], num_scenes: int) -> list[str]:
    mark = ""
    if any(estimate.within_noise is not None for row in report.variants for estimate in row.truth.values()):
        noise = f"within the noise of these {num_scenes} scenes or the last digit"
        mark = f", {SAME_AS_FP32} no different from {REFERENCE_VARIANT} {noise}"
    sentences = dict.fromkeys(metric.legend for metric in shown.values() if metric.legend)
    return [f"↑ more is better, ↓ less is better{mark}.", *_packed(sentences), *_fewer_scenes(report, shown)]


def _packed(sentences: dict[str, None]) -> list[str]:
    """As few lines as the sentences take without being broken."""
    lines: list[str] = []
    for sentence in sentences:
        if lines and len(lines[-1]) + 1 + len(sentence) <= WIDTH:
            lines[-1] += f" {sentence}"
        else:
            lines.append(sentence)
    return lines


def _fewer_scenes(report: ComparisonReport, shown: dict[str, Metric]) -> list[str]:
    """Which columns do not stand on all scenes."""
    fewer = []
    for name, metric in shown.items():
        count = next(row.truth[name].num_scenes for row in report.variants if name in row.truth)
        if count < len(truth_scenes(report.variants)):
            fewer.append(f"{metric.title} {count}")
    return [f"Some scenes lack part of the ground truth. Scenes per column: {', '.join(fewer)}."] if fewer else []
