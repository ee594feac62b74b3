"""The numbers that the table, the figures and the recommendation show, drawn from a row of the report in one place.

Every function answers None where the row has no such number, so a failed variant needs no special case.
"""

from collections import Counter
from collections.abc import Callable

from vggt_quant.results.schema import ComparisonReport, Estimate, MethodRow, SceneAccuracy, SpeedResult

REFERENCE_VARIANT = "fp32"
BF16_VARIANT = "bf16"
LAST_DIGIT = 0.001
"""0.1 % or 0.1 cm, the last digit that is shown of a figure against the truth: a smaller difference is none to people,
even where it is so regular that statistics see it."""


def checkpoint_bytes(row: MethodRow) -> int | None:
    """Size of the packed checkpoint's file."""
    if row.quantize and row.quantize.checkpoint_bytes is not None:
        return row.quantize.checkpoint_bytes
    return row.speed.checkpoint_bytes if row.speed else None


def latency_ms(row: MethodRow) -> float | None:
    """Median latency of the forward pass."""
    return row.speed.latency_ms_median if row.speed else None


def latency_box_ms(row: MethodRow) -> tuple[float, float] | None:
    """The middle half of the latencies, taken as half the IQR to each side of the median."""
    median = latency_ms(row)
    if median is None or row.speed is None:
        return None
    half = (row.speed.latency_ms_iqr or 0.0) / 2
    return median - half, median + half


def depth_abs_rel(row: MethodRow) -> float | None:
    """Mean over scenes of AbsRel against fp32; None if a scene has none, since the rest would flatter the variant."""
    return _mean_over_scenes(row, lambda scene: scene.depth_abs_rel)


def rotation_error_deg(row: MethodRow) -> float | None:
    """Mean over scenes of the mean rotation error of the cameras."""
    return _mean_over_scenes(row, lambda scene: scene.rotation_error_deg_mean)


def worst_sqnr_db(row: MethodRow) -> float | None:
    """The lowest SQNR of any output in any scene; None if an output has no number or all are identical."""
    outputs = [error for scene in _scenes(row) for error in scene.outputs.values()]
    values = [output.sqnr_db for output in outputs if not output.identical]
    return min(values) if values and None not in values else None


def is_identical(row: MethodRow) -> bool:
    """Whether every output of every scene equals the reference bit by bit."""
    outputs = [error for scene in _scenes(row) for error in scene.outputs.values()]
    return bool(outputs) and all(output.identical for output in outputs)


def truth_scenes(rows: list[MethodRow]) -> list[str]:
    """The scenes in which any of the rows is held against the ground truth."""
    return list(dict.fromkeys(scene.scene for row in rows for scene in _scenes(row) if scene.truth))


def is_as_fp32(estimate: Estimate) -> bool | None:
    """Whether a figure is fp32's within the noise of the scenes or the last digit shown; None if nothing tells."""
    if estimate.within_noise is None or estimate.difference is None:
        return None
    return estimate.within_noise or abs(estimate.difference) < LAST_DIGIT


def speed_device(row: MethodRow) -> str | None:
    """Name of the device on which the row's time and memory were measured."""
    return row.speed.provenance.device_name if row.speed and row.speed.provenance else None


def speed_kind(row: MethodRow) -> str | None:
    """`cpu` or `cuda`."""
    return row.speed.provenance.device if row.speed and row.speed.provenance else None


def main_device(rows: list[MethodRow]) -> str | None:
    """The device that times are compared on: that of fp32, or else of most rows."""
    rows = [row for row in rows if speed_device(row)]
    for row in rows:
        if row.variant == REFERENCE_VARIANT:
            return speed_device(row)
    return Counter(speed_device(row) for row in rows).most_common(1)[0][0] if rows else None


def is_on_other_device(row: MethodRow, rows: list[MethodRow]) -> bool:
    """Whether the row's time was measured elsewhere than most of `rows`, so that it cannot stand beside them."""
    return speed_device(row) not in (None, main_device(rows))


def is_random(report: ComparisonReport) -> bool:
    """Whether the compared weights are random, so that accuracy carries no verdict on a method."""
    return bool(report.model and report.model.random_weights)


def find_variant(rows: list[MethodRow], variant: str) -> MethodRow | None:
    """The row of that name."""
    return next((row for row in rows if row.variant == variant), None)


def speedup(baseline: SpeedResult | None, speed: SpeedResult | None) -> float | None:
    """Ratio of median latencies; None unless both were measured on the same device and shape."""
    if not (baseline and speed and baseline.provenance and speed.provenance):
        return None
    is_comparable = (
        baseline.provenance.device_name == speed.provenance.device_name
        and baseline.provenance.device == speed.provenance.device
        and baseline.shape == speed.shape
    )
    if not is_comparable or not baseline.latency_ms_median or not speed.latency_ms_median:
        return None
    return baseline.latency_ms_median / speed.latency_ms_median


def format_bytes(count: int | float | None) -> str:
    """Decimal units, three or four digits: `5.03 GB`."""
    if count is None:
        return "-"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{format_number(count / size)} {unit}"
    return f"{count:.0f} B"


def format_number(value: float | None) -> str:
    """Three digits, without an exponent between 0.001 and a million."""
    if value is None:
        return "-"
    size = abs(float(f"{value:.3g}"))  # 9.997 is 10.0, not 10.00
    if size >= 100:
        return f"{value:.0f}" if size < 1e6 else f"{value:.1e}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size == 0:
        return "0"
    if size >= 0.1:
        return f"{value:.3f}"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.1e}"


def one_line(text: str) -> str:
    """The first line of a message that may hold a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _scenes(row: MethodRow) -> list[SceneAccuracy]:
    return row.accuracy.scenes if row.accuracy else []


def _mean_over_scenes(row: MethodRow, value: Callable[[SceneAccuracy], float | None]) -> float | None:
    values = [value(scene) for scene in _scenes(row)]
    if not values or None in values:
        return None
    return sum(v for v in values if v is not None) / len(values)
