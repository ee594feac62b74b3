"""The part of the summary that holds the variants against the ground truth, with intervals and the mark of noise."""

from dataclasses import dataclass

from vggt_quant.report.rows import REFERENCE_VARIANT, is_as_fp32, is_random, truth_scenes
from vggt_quant.report.text_table import lay_out
from vggt_quant.results.intervals import FEWEST_SCENES
from vggt_quant.results.schema import ComparisonReport, Estimate

CONTROL = "constant_depth_abs_rel"
SAME_AS_FP32 = "~"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A figure of `TruthAccuracy`, shown a hundredfold: shares in per cent, metres in centimetres."""

    figure: str
    title: str
    unit: str


COLUMNS = (
    Column(figure="pose_auc_30", title="↑ pose AUC@30", unit="%"),
    Column(figure="pose_auc_5", title="↑ pose AUC@5", unit="%"),
    Column(figure="depth_abs_rel", title="↓ depth AbsRel", unit="%"),
    Column(figure="depth_delta_125", title="↑ depth <1.25x", unit="%"),
    Column(figure="point_error_of_scene_size", title="↓ point error", unit="% of scene"),
    Column(figure="cloud_overall_mean", title="↓ cloud error", unit="cm"),
)


def truth_section(report: ComparisonReport) -> list[str]:
    """Title, table and legend; nothing where no ground truth is known."""
    num_scenes = len(truth_scenes(report.methods))
    if not num_scenes:
        return []
    if is_random(report):
        return ["The ground truth is known, but random weights have learnt nothing: no variant is held against it."]
    return [_title(num_scenes), "", *_table(report), *_legend(report, num_scenes)]


def _title(num_scenes: int) -> str:
    if num_scenes < FEWEST_SCENES:
        scenes = "one scene" if num_scenes == 1 else f"{num_scenes} scenes"
        warning = f"below {FEWEST_SCENES} there are no intervals: do not read much into small differences"
        return f"Against the ground truth of {scenes} ({warning})"
    return f"Against the ground truth of {num_scenes} scenes: mean [95 % interval over the scenes]"


def _table(report: ComparisonReport) -> list[str]:
    names = ["", "variant", *(row.variant for row in report.methods)]
    control = next((row.truth[CONTROL] for row in report.methods if CONTROL in row.truth), None)
    names += ["same depth everywhere"] if control else []
    shown = [_cells(column, report, control) for column in COLUMNS if _has(column, report)]
    return lay_out(names, [list(line) for line in zip(*shown, strict=True)], [""] * len(names), header=2)


def _has(column: Column, report: ComparisonReport) -> bool:
    return any(column.figure in row.truth for row in report.methods)


def _cells(column: Column, report: ComparisonReport, control: Estimate | None) -> list[str]:
    """A column: title, unit, a cell for each variant, and one for the control if there is any."""
    estimates = [row.truth.get(column.figure) for row in report.methods]
    digits = 0 if max(_width(estimate) for estimate in estimates if estimate) >= 4 else 1
    estimates += [control if column.figure == "depth_abs_rel" else None] if control else []
    return [column.title, column.unit, *(_cell(estimate, digits=digits) for estimate in estimates)]


def _width(estimate: Estimate) -> float:
    return 0.0 if estimate.low is None or estimate.high is None else 100 * (estimate.high - estimate.low)


def _cell(estimate: Estimate | None, *, digits: int) -> str:
    """`76.1 [70–82]~`; the place of the mark stays empty without it, so that figures stand below each other."""
    if estimate is None:
        return "- "
    mark = SAME_AS_FP32 if is_as_fp32(estimate) else " "
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f" [{100 * estimate.low:.{digits}f}–{100 * estimate.high:.{digits}f}]"
    return f"{100 * estimate.mean:.1f}{interval}{mark}"


def _legend(report: ComparisonReport, num_scenes: int) -> list[str]:
    mark = ""
    if any(estimate.within_noise is not None for row in report.methods for estimate in row.truth.values()):
        noise = f"within the noise of these {num_scenes} scenes or the last digit"
        mark = f", {SAME_AS_FP32} no different from {REFERENCE_VARIANT} {noise}"
    lines = [
        f"↑ more is better, ↓ less is better{mark}.",
        "AUC: camera poses of all pairs of images, errors up to 30 (5) degrees count. Depth: after one scale a scene.",
        "Points: after the best similarity. Point error: the model's own points. Cloud error: its depth and cameras.",
    ]
    return [*lines, *_fewer_scenes(report, num_scenes)]


def _fewer_scenes(report: ComparisonReport, num_scenes: int) -> list[str]:
    """Which columns do not stand on all scenes."""
    fewer = {}
    for column in COLUMNS:
        counts = [row.truth[column.figure].num_scenes for row in report.methods if column.figure in row.truth]
        if counts and counts[0] < num_scenes:
            fewer[column.title[2:]] = counts[0]
    listed = ", ".join(f"{title} {count}" for title, count in fewer.items())
    return [f"Not every scene's truth tells all; scenes behind a column: {listed}."] if fewer else []
