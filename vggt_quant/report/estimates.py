"""Figures of single scenes -> one estimate a variant: mean, interval, and the difference from fp32 scene by scene.

All variants are judged on the same scenes: those in which any of them has the figure. A variant that has none in one of
these gets no estimate, since the mean of the others would flatter it. No torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from vggt_quant.report.rows import REFERENCE_VARIANT
from vggt_quant.results.intervals import bootstrap_interval, is_within_noise, paired_difference
from vggt_quant.results.scene_schema import TruthAccuracy
from vggt_quant.results.schema import Estimate, MethodRow, SceneAccuracy

Figures = Mapping[str, Mapping[str, float | None]]
"""Figure -> scene -> value."""


def with_estimates(rows: list[MethodRow]) -> list[MethodRow]:
    """Fill in `deviation` and `truth` of every row."""
    deviation = {row.variant: _figures(SceneAccuracy, _scenes(row)) for row in rows}
    truth = {row.variant: _figures(TruthAccuracy, _truths(row)) for row in rows}
    return [
        dataclasses.replace(
            row,
            deviation=_estimates(deviation, row.variant, baseline=None),
            truth=_estimates(truth, row.variant, baseline=REFERENCE_VARIANT),
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


def _estimates(variants: Mapping[str, Figures], variant: str, *, baseline: str | None) -> dict[str, Estimate]:
    fp32 = variants.get(baseline) if baseline and baseline != variant else None
    found = {}
    for figure in variants[variant]:
        scenes = _scenes_with(figure, variants)
        values = [_value(variants[variant], figure, scene) for scene in scenes]
        made = estimate(values, [_value(fp32, figure, scene) for scene in scenes] if fp32 else None)
        found |= {figure: made} if made else {}
    return found


def _scenes_with(figure: str, variants: Mapping[str, Figures]) -> list[str]:
    """The scenes in which any variant has the figure, in their order."""
    tables = [figures[figure] for figures in variants.values()]
    return list(dict.fromkeys(scene for table in tables for scene, value in table.items() if value is not None))


def _value(figures: Figures, figure: str, scene: str) -> float | None:
    return figures.get(figure, {}).get(scene)


def _scenes(row: MethodRow) -> dict[str, SceneAccuracy]:
    return {scene.scene: scene for scene in row.accuracy.scenes} if row.accuracy else {}


def _truths(row: MethodRow) -> dict[str, TruthAccuracy]:
    return {name: scene.truth for name, scene in _scenes(row).items() if scene.truth}


def _figures(cls: type, scenes: Mapping[str, SceneAccuracy | TruthAccuracy]) -> Figures:
    names = [field.name for field in dataclasses.fields(cls) if field.type == float | None]
    return {name: {scene: getattr(result, name) for scene, result in scenes.items()} for name in names}
