"""Figures of single scenes -> one estimate per variant: mean, interval, and the paired difference from fp32.

All variants are judged on the same scenes: those in which any variant has the figure. A variant without the figure in
one of them gets no estimate, because the mean over its other scenes would flatter it. No torch.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from vggt_quant.report.rows import REFERENCE_VARIANT, judged
from vggt_quant.results.intervals import bootstrap_interval, is_within_noise, paired_difference
from vggt_quant.results.metric import Figures, Metric, Metrics
from vggt_quant.results.report_schema import Estimate, VariantRow

Scenes = Mapping[str, Figures]
"""Scene -> metric -> value."""


def with_estimates(rows: list[VariantRow], metrics: Metrics) -> list[VariantRow]:
    """Fill in `deviation` and `truth` of every row, for the metrics that are described."""
    deviation = {row.variant: _deviations(row) for row in rows}
    truth = {row.variant: _truths(row) for row in rows}
    return [
        replace(
            row,
            deviation=_estimates(metrics.get("deviation", {}), deviation, row.variant, baseline=None),
            truth=_estimates(metrics.get("truth", {}), truth, row.variant, baseline=REFERENCE_VARIANT),
        )
        for row in rows
    ]


def estimate(values: Sequence[float | None], baseline: Sequence[float | None] | None = None) -> Estimate | None:
    """The estimate of a figure over scenes; None where a scene lacks it.

    Args:
        values: One a scene.
        baseline: fp32's, of the same scenes; None leaves the difference out.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    interval = bootstrap_interval(values)
    difference = paired_difference(values, baseline) if baseline else None
    mean, low, high = difference or (None, None, None)
    return Estimate(
        mean=sum(known) / len(known),
        num_scenes=len(known),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        difference=mean,
        difference_low=low,
        difference_high=high,
        within_noise=is_within_noise(difference[1:]) if difference else None,
    )


def _estimates(
    metrics: Mapping[str, Metric], variants: Mapping[str, Scenes], variant: str, *, baseline: str | None
) -> dict[str, Estimate]:
    fp32 = variants.get(baseline) if baseline and baseline != variant else None
    found: dict[str, Estimate] = {}
    for metric in (name for name, described in metrics.items() if not described.is_count):
        scenes = _scenes_with(metric, variants)
        values = _values(variants[variant], metric, scenes)
        made = estimate(values, _values(fp32, metric, scenes) if fp32 else None)
        if made:
            found[metric] = made
    return found


def _scenes_with(metric: str, variants: Mapping[str, Scenes]) -> list[str]:
    """The scenes in which any variant has the figure, in their order."""
    known = [(scene, figures) for scenes in variants.values() for scene, figures in scenes.items()]
    return list(dict.fromkeys(scene for scene, figures in known if figures.get(metric) is not None))


def _values(figures: Scenes, metric: str, scenes: list[str]) -> list[float | None]:
    return [figures.get(scene, {}).get(metric) for scene in scenes]


def _deviations(row: VariantRow) -> Scenes:
    accuracy = judged(row)
    return {scene.scene: scene.deviation for scene in accuracy.scenes} if accuracy else {}


def _truths(row: VariantRow) -> Scenes:
    accuracy = judged(row)
    return {scene.scene: scene.truth for scene in accuracy.scenes if scene.truth is not None} if accuracy else {}
