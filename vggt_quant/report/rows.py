"""Figures of a row of the report, for the table, the plots and the recommendation.

Every function returns None if the row has no such figure, so a failed variant needs no special case.
"""

from collections import Counter

from vggt_quant.results.metric import Metric, last_digit
from vggt_quant.results.report_schema import ComparisonReport, Estimate, VariantRow
from vggt_quant.results.scene_schema import SceneAccuracy
from vggt_quant.results.schema import AccuracyResult, QuantizeResult, SpeedResult

REFERENCE_VARIANT = "fp32"
BF16_VARIANT = "bf16"
CLOSENESS = "depth_abs_rel"
"""The deviation by which variants are ranked as close to fp32."""


def quantized(row: VariantRow) -> QuantizeResult | None:
    """The packed checkpoint, where there is one."""
    return row.quantize if isinstance(row.quantize, QuantizeResult) else None


def judged(row: VariantRow) -> AccuracyResult | None:
    """The accuracy, where it was measured."""
    return row.accuracy if isinstance(row.accuracy, AccuracyResult) else None


def timed(row: VariantRow) -> SpeedResult | None:
    """Time and memory, where they were measured."""
    return row.speed if isinstance(row.speed, SpeedResult) else None


def checkpoint_bytes(row: VariantRow) -> int | None:
    """Size of the packed checkpoint's file."""
    result = quantized(row) or timed(row)
    return result.checkpoint_bytes if result else None


def latency_ms(row: VariantRow) -> float | None:
    """Median latency of the forward pass."""
    speed = timed(row)
    return speed.latency_ms_median if speed else None


def latency_box_ms(row: VariantRow) -> tuple[float, float] | None:
    """The middle half of the latencies, taken as half the IQR to each side of the median."""
    speed = timed(row)
    if speed is None:
        return None
    half = speed.latency_ms_iqr / 2
    return speed.latency_ms_median - half, speed.latency_ms_median + half


def deviation(row: VariantRow, metric: str) -> float | None:
    """Mean over scenes of a deviation from fp32; None if a scene has none, since the rest would flatter the variant."""
    values = [scene.deviation.get(metric) for scene in _scenes(row)]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def worst_sqnr_db(row: VariantRow) -> float | None:
    """The lowest SQNR of any output in any scene; None if an output has no number or all are identical."""
    outputs = [error for scene in _scenes(row) for error in scene.outputs.values()]
    values = [output.sqnr_db for output in outputs if not output.identical]
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def is_identical(row: VariantRow) -> bool:
    """Whether every output of every scene equals the reference bit by bit."""
    outputs = [error for scene in _scenes(row) for error in scene.outputs.values()]
    return bool(outputs) and all(output.identical for output in outputs)


def truth_scenes(rows: list[VariantRow]) -> list[str]:
    """The scenes in which any of the rows is compared with the ground truth."""
    return list(dict.fromkeys(scene.scene for row in rows for scene in _scenes(row) if scene.truth is not None))


def is_as_fp32(estimate: Estimate, metric: Metric) -> bool | None:
    """Whether a figure does not differ from fp32's significantly or in a printed digit; None if that is not known.

    Differences below the last printed digit are treated as equal, even if they are statistically significant.
    """
    if estimate.within_noise is None or estimate.difference is None:
        return None
    return estimate.within_noise or abs(estimate.difference) < last_digit(metric)


def speed_device(row: VariantRow) -> str | None:
    """Name of the device on which the row's time and memory were measured."""
    speed = timed(row)
    return speed.provenance.device_name if speed else None


def main_device(rows: list[VariantRow]) -> str | None:
    """The device that times are compared on: that of fp32, or else of most rows."""
    rows = [row for row in rows if speed_device(row)]
    for row in rows:
        if row.variant == REFERENCE_VARIANT:
            return speed_device(row)
    return Counter(speed_device(row) for row in rows).most_common(1)[0][0] if rows else None


def is_on_other_device(row: VariantRow, rows: list[VariantRow]) -> bool:
    """Whether the row's time was measured elsewhere than most of `rows`, so that the two cannot be compared."""
    return speed_device(row) not in (None, main_device(rows))


def is_random(report: ComparisonReport) -> bool:
    """Whether the compared weights are random, so that accuracy carries no verdict on a method."""
    return bool(report.model and report.model.random_weights)


def find_variant(rows: list[VariantRow], variant: str) -> VariantRow | None:
    """The row of that name."""
    return next((row for row in rows if row.variant == variant), None)


def speedup(baseline: SpeedResult | None, speed: SpeedResult | None) -> float | None:
    """Ratio of median latencies; None unless both were measured on the same device and shape."""
    if baseline is None or speed is None or _circumstances(baseline) != _circumstances(speed):
        return None
    if not baseline.latency_ms_median or not speed.latency_ms_median:
        return None
    return baseline.latency_ms_median / speed.latency_ms_median


def _circumstances(speed: SpeedResult) -> tuple[object, ...]:
    return speed.provenance.device_name, speed.provenance.device, speed.shape


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


def printed(value: float, metric: Metric, decimals: int | None = None) -> str:
    """A value of a metric in its unit: with `decimals`, else with the metric's own, else with three digits."""
    decimals = metric.decimals if decimals is None else decimals
    return format_number(metric.scale * value) if decimals is None else f"{metric.scale * value:.{decimals}f}"


def one_line(text: str) -> str:
    """The first line of a message that may hold a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _scenes(row: VariantRow) -> list[SceneAccuracy]:
    accuracy = judged(row)
    return accuracy.scenes if accuracy else []
