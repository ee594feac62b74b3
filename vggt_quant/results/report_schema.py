"""The schema of comparison_report.json: every variant in one file, with estimates over the scenes."""

from vggt_quant.results.metric import Metrics
from vggt_quant.results.record import Measured, Record
from vggt_quant.results.schema import (
    AccuracyResult,
    Error,
    Failed,
    ImagesResult,
    ModelResult,
    Outcome,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    Unsupported,
    expect_known,
)


class Estimate(Record, frozen=True, kw_only=True):
    """One figure of a variant over scenes: its mean, how sure that is, and how it differs from fp32's.

    Intervals are 95 % bootstrap intervals over scenes. One scene has none; without fp32 there is no difference.
    """

    mean: float
    num_scenes: int
    low: Measured = None
    high: Measured = None
    difference: Measured = None
    """Mean over scenes of this variant's figure minus fp32's on the same scene."""
    difference_low: Measured = None
    difference_high: Measured = None
    within_noise: bool | None = None
    """Whether zero lies inside the difference's interval: the difference from fp32 is not significant."""


class VariantRow(Record, frozen=True, kw_only=True):
    """One variant in the comparison: every figure, or the error where it failed."""

    variant: str
    outcome: Outcome
    error: Error | None
    quantize: QuantizeResult | Unsupported | Failed | None = None
    accuracy: AccuracyResult | Unsupported | Failed | None = None
    speed: SpeedResult | Unsupported | Failed | None = None
    compression_vs_fp32: Measured = None
    """fp32 checkpoint bytes over this variant's."""
    speedup_vs_fp32: Measured = None
    speedup_vs_bf16: Measured = None
    """Ratios of median latencies; null when the two were not measured on the same device."""
    deviation: dict[str, Estimate] = {}
    """Metric -> how far from fp32, over all scenes."""
    truth: dict[str, Estimate] = {}
    """Metric -> how far from the truth, over the scenes that have this ground truth."""


class ComparisonReport(Record, frozen=True, kw_only=True):
    """comparison_report.json: the whole comparison in one file."""

    partial: bool
    """True when a variant failed and the run goes on later."""
    model: ModelResult | None
    images: ImagesResult | None
    calibration: ImagesResult | None
    """Scenes for methods that calibrate; no photo of them is among `images`. Null when none are configured."""
    reference: ReferenceResult | None
    metrics: Metrics
    """What the figures of the scenes and of the estimates are."""
    variants: list[VariantRow]
    recommendation: str
    errors: list[Error]
    """Errors of steps that belong to no variant, e.g. the fp32 reference."""
    created: str

    def __post_init__(self) -> None:
        """Refuse figures that `metrics` does not name."""
        for row in self.variants:
            if isinstance(row.accuracy, AccuracyResult):
                expect_known(row.accuracy.scenes, self.metrics)
