"""Recommend a variant, by rules that the text itself states.

Only variants that finished are named, and times are compared on one device only. Two times are not significantly
different, and count as equal, if their boxes (the middle half of the runs) overlap.

The best trade is the variant with the smallest product of checkpoint bytes and latency among the acceptable ones. If
the ground truth of enough scenes is known, a variant is acceptable if it is not significantly worse than fp32 in any
metric with a column in the summary's table; differences below the last printed digit do not count. Otherwise the
acceptable variants are the Pareto front of size, time and depth error, with a depth error of at most `DEPTH_LIMIT`.
With random weights accuracy is ignored: it checks the kernels and does not rank methods.
"""

from vggt_quant.report.rows import (
    CLOSENESS,
    REFERENCE_VARIANT,
    checkpoint_bytes,
    deviation,
    find_variant,
    format_bytes,
    format_number,
    is_as_fp32,
    is_on_other_device,
    latency_box_ms,
    latency_ms,
)
from vggt_quant.results.metric import Metric, Metrics, columns
from vggt_quant.results.report_schema import VariantRow

DEPTH_LIMIT = 0.01
"""Largest depth AbsRel against fp32 of a variant that may be the best trade: 1 % of the depth."""


def recommendation(rows: list[VariantRow], metrics: Metrics, *, random_weights: bool) -> str:
    """One sentence a line: the smallest, the fastest, the closest to fp32, the best trade, and by which rule."""
    finished = [row for row in rows if row.outcome == "ok"]
    if not finished:
        return "No variant finished, so there is nothing to recommend: see the errors."
    if all(row.variant == REFERENCE_VARIANT for row in finished):
        return "Only fp32 finished, so there is nothing to compare it with."
    timed = [row for row in finished if latency_ms(row) and not is_on_other_device(row, finished)]
    judges = judging(metrics)
    lines = [_smallest(finished), _fastest(timed)]
    if random_weights:
        lines.append("Closest to fp32: not judged. The weights are random, so no variant is recommended for accuracy.")
    else:
        lines += [_closest(finished), _against_the_truth(finished, judges)]
    has_truth = not random_weights and any(is_judged(row, judges) for row in finished)
    trade = _best_without_loss(timed, judges) if has_truth else _best_trade(timed, random_weights=random_weights)
    lines.append(trade)
    return "\n".join(line for line in lines if line)


def judging(metrics: Metrics) -> dict[str, Metric]:
    """The metrics in which a variant must not lose: those against the truth with a column, and a better direction."""
    return {name: metric for name, metric in columns(metrics.get("truth", {})).items() if metric.better}


def pareto_front(rows: list[VariantRow], *, random_weights: bool) -> list[VariantRow]:
    """The rows with all of size, time and depth error (size and time, if weights are random) that none dominates."""
    rows = [row for row in rows if checkpoint_bytes(row) and latency_ms(row)]
    if not random_weights:
        rows = [row for row in rows if depth_abs_rel(row) is not None]
    return [row for row in rows if not any(_dominates(other, row, random_weights) for other in rows)]


def is_judged(row: VariantRow, judges: dict[str, Metric]) -> bool:
    """Whether the ground truth could tell the variant from fp32: it takes enough scenes, and fp32's own figures."""
    return any(_loss(row, name, metric) is not None for name, metric in judges.items())


def losses(row: VariantRow, judges: dict[str, Metric]) -> dict[str, float]:
    """Metric -> how much worse than fp32 against the ground truth, where that is significant and would be printed."""
    found = {}
    for name, metric in judges.items():
        loss = _loss(row, name, metric)
        if loss and loss > 0 and not is_as_fp32(row.truth[name], metric):
            found[name] = loss
    return found


def missing(row: VariantRow, rows: list[VariantRow], judges: dict[str, Metric]) -> list[str]:
    """Titles of the figures that fp32 has and the variant lacks, since an output of it was not finite in some scene."""
    fp32 = find_variant(rows, REFERENCE_VARIANT)
    return [metric.title for name, metric in judges.items() if fp32 and name in fp32.truth and name not in row.truth]


def _loss(row: VariantRow, name: str, metric: Metric) -> float | None:
    """Positive where the variant is worse than fp32."""
    estimate = row.truth.get(name)
    if estimate is None or estimate.difference is None:
        return None
    return -estimate.difference if metric.better == "up" else estimate.difference


def depth_abs_rel(row: VariantRow) -> float | None:
    """How far the variant's depth is from that of fp32."""
    return deviation(row, CLOSENESS)


def is_within_noise(row: VariantRow, other: VariantRow) -> bool:
    """Whether the latency boxes of two rows overlap."""
    box, other_box = latency_box_ms(row), latency_box_ms(other)
    return box is not None and other_box is not None and box[0] <= other_box[1] and other_box[0] <= box[1]


def _dominates(row: VariantRow, other: VariantRow, random_weights: bool) -> bool:
    """At least as good in everything and better in something."""
    order = [_compare(checkpoint_bytes(row), checkpoint_bytes(other))]
    order.append(0 if is_within_noise(row, other) else _compare(latency_ms(row), latency_ms(other)))
    if not random_weights:
        order.append(_compare(depth_abs_rel(row), depth_abs_rel(other)))
    return max(order) <= 0 and min(order) < 0


def _compare(value: float | None, other: float | None) -> int:
    assert value is not None and other is not None, "the front only holds rows with every number"
    return (value > other) - (value < other)


def _smallest(rows: list[VariantRow]) -> str:
    sized = sorted((row for row in rows if checkpoint_bytes(row)), key=lambda row: checkpoint_bytes(row) or 0)
    if not sized:
        return ""
    best = sized[0]
    limit = 1.01 * (checkpoint_bytes(best) or 0)
    ties = [row.variant for row in sized[1:] if (checkpoint_bytes(row) or 0) <= limit]
    also = f"; within 1 % of it: {', '.join(ties)}" if ties else ""
    return f"Smallest: {best.variant}, {format_bytes(checkpoint_bytes(best))}{_times(best, 'smaller')}{also}."


def _fastest(rows: list[VariantRow]) -> str:
    if not rows:
        return "Fastest: not known, no time was measured."
    ranked = sorted(rows, key=lambda row: latency_ms(row) or 0)
    best = ranked[0]
    noise = [f"{row.variant} ({_milliseconds(row)})" for row in ranked[1:] if is_within_noise(best, row)]
    also = f"; no different within the noise: {', '.join(noise)}" if noise else ""
    return f"Fastest: {best.variant}, {_milliseconds(best)}{_times(best, 'faster')}{also}."


def _closest(rows: list[VariantRow]) -> str:
    ranked = [row for row in rows if row.variant != REFERENCE_VARIANT and depth_abs_rel(row) is not None]
    if not ranked:
        return "Closest to fp32: not known, no variant has a depth error."
    best = min(ranked, key=lambda row: depth_abs_rel(row) or 0)
    return f"Closest to fp32: {best.variant}, depth AbsRel {format_number(depth_abs_rel(best))}."


def _against_the_truth(rows: list[VariantRow], judges: dict[str, Metric]) -> str:
    if not any(is_judged(row, judges) for row in rows):
        return ""
    num_scenes = max(estimate.num_scenes for row in rows for estimate in row.truth.values())
    faults = {
        row.variant: _list_faults(row, rows, judges)
        for row in rows
        if is_judged(row, judges) or missing(row, rows, judges)
    }
    good = ", ".join(name for name, text in faults.items() if not text) or "none"
    bad = "; ".join(f"{name} ({text})" for name, text in faults.items() if text) or "none"
    return f"Against the truth of {num_scenes} scenes, no loss beyond the noise: {good}.\nWorse than fp32: {bad}."


def _list_faults(row: VariantRow, rows: list[VariantRow], judges: dict[str, Metric]) -> str:
    """`pose AUC@30 by 2.3 points, cloud error by 1.4 cm; no depth AbsRel`."""
    lost = ", ".join(_by_how_much(judges[name], loss) for name, loss in losses(row, judges).items())
    lacks = ", ".join(missing(row, rows, judges))
    return "; ".join(text for text in (lost, f"no {lacks}" if lacks else "") if text)


def _by_how_much(metric: Metric, loss: float) -> str:
    return f"{metric.title} by {metric.scale * loss:.2g} {metric.difference_unit or metric.unit}".strip()


def _best_without_loss(timed: list[VariantRow], judges: dict[str, Metric]) -> str:
    eligible = [row for row in timed if checkpoint_bytes(row) and _is_lossless(row, timed, judges)]
    if not eligible:
        return "Best trade: none; every variant with a size and a time loses accuracy against the truth."
    best = min(eligible, key=_bytes_times_ms)
    verdict = _verdict(best, find_variant(timed, REFERENCE_VARIANT))
    if best.variant != REFERENCE_VARIANT:
        verdict += ", no loss against the truth beyond the noise"
    titles = ", ".join(metric.title for metric in judges.values())
    names = ", ".join(row.variant for row in eligible)
    rule = f"Rule: smallest bytes x milliseconds among those that lose nothing in {titles} beyond the noise ({names})."
    return f"Best trade: {verdict}.\n{rule}"


def _is_lossless(row: VariantRow, rows: list[VariantRow], judges: dict[str, Metric]) -> bool:
    if row.variant == REFERENCE_VARIANT:
        return True
    return is_judged(row, judges) and not _list_faults(row, rows, judges)


def _bytes_times_ms(row: VariantRow) -> float:
    return (checkpoint_bytes(row) or 0) * (latency_ms(row) or 0)


def _best_trade(timed: list[VariantRow], *, random_weights: bool) -> str:
    front = pareto_front(timed, random_weights=random_weights)
    eligible = [row for row in front if random_weights or (depth_abs_rel(row) or 0) <= DEPTH_LIMIT]
    limit = "" if random_weights else f" with a depth AbsRel of at most {DEPTH_LIMIT:g}"
    if not eligible:
        return f"Best trade: none; no variant with a size and a time is on the front{limit}."
    best = min(eligible, key=_bytes_times_ms)
    axes = "size and time alone" if random_weights else "size, time and depth error"
    names = ", ".join(row.variant for row in front)
    verdict = _verdict(best, find_variant(timed, REFERENCE_VARIANT))
    if not random_weights:
        verdict += f", depth AbsRel {format_number(depth_abs_rel(best))}"
    rule = f"Rule: smallest bytes x milliseconds among those that none beats in {axes} ({names}){limit}."
    return f"Best trade{' of ' + axes if random_weights else ''}: {verdict}.\n{rule}"


def _verdict(best: VariantRow, reference: VariantRow | None) -> str:
    if best.variant == REFERENCE_VARIANT:
        return "fp32 itself; no variant is worth it here"
    parts = [_times(best, "smaller"), _times(best, "faster")]
    if reference and is_within_noise(best, reference):
        parts[1] = " (as fast as fp32 within the noise)"
    return best.variant + "".join(parts)


def _times(row: VariantRow, comparative: str) -> str:
    """`, 5.9x smaller than fp32`, or the honest opposite."""
    ratio = row.compression_vs_fp32 if comparative == "smaller" else row.speedup_vs_fp32
    if ratio is None or row.variant == REFERENCE_VARIANT:
        return ""
    if ratio >= 1:
        return f", {format_number(ratio)}x {comparative} than fp32"
    opposite = "larger" if comparative == "smaller" else "slower"
    return f", {format_number(1 / ratio)}x {opposite} than fp32"


def _milliseconds(row: VariantRow) -> str:
    return f"{format_number(latency_ms(row))} ms"
