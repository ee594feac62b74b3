"""Which variant to take, derived from the rows by rules that the text itself states.

Only variants that finished are named, and times are compared on one device only. Times whose boxes (the middle half
of the runs) overlap are within the noise and count as equal. The best trade is the variant with the smallest product
of checkpoint bytes and latency among those that no other beats in size, time and depth error at once (the Pareto
front), with a depth error of at most `DEPTH_LIMIT`. With random weights the depth error takes no part: it shows that
the arithmetic is right, not how good a method is.
"""

from vggt_quant.results import MethodRow
from vggt_quant.row_values import (
    REFERENCE_VARIANT,
    checkpoint_bytes,
    depth_abs_rel,
    find_variant,
    format_bytes,
    format_number,
    is_on_other_device,
    latency_box_ms,
    latency_ms,
)

DEPTH_LIMIT = 0.01
"""Largest depth AbsRel against fp32 of a variant that may be the best trade: 1 % of the depth."""


def recommendation(rows: list[MethodRow], *, random_weights: bool) -> str:
    """One sentence a line: the smallest, the fastest, the closest to fp32, the best trade, and by which rule."""
    finished = [row for row in rows if row.outcome == "ok"]
    if not finished:
        return "No variant finished, so there is nothing to recommend: see the errors."
    if all(row.variant == REFERENCE_VARIANT for row in finished):
        return "Only fp32 finished, so there is nothing to compare it with."
    timed = [row for row in finished if latency_ms(row) and not is_on_other_device(row, finished)]
    lines = [_smallest(finished), _fastest(timed)]
    if random_weights:
        lines.append("Closest to fp32: not judged. The weights are random, so no variant is recommended for accuracy.")
    else:
        lines.append(_closest(finished))
    lines.append(_best_trade(timed, random_weights=random_weights))
    return "\n".join(line for line in lines if line)


def pareto_front(rows: list[MethodRow], *, random_weights: bool) -> list[MethodRow]:
    """The rows with all of size, time and depth error (size and time, if weights are random) that none dominates."""
    rows = [row for row in rows if checkpoint_bytes(row) and latency_ms(row)]
    if not random_weights:
        rows = [row for row in rows if depth_abs_rel(row) is not None]
    return [row for row in rows if not any(_dominates(other, row, random_weights) for other in rows)]


def is_within_noise(row: MethodRow, other: MethodRow) -> bool:
    """Whether the latency boxes of two rows overlap."""
    box, other_box = latency_box_ms(row), latency_box_ms(other)
    return bool(box and other_box) and box[0] <= other_box[1] and other_box[0] <= box[1]


def _dominates(row: MethodRow, other: MethodRow, random_weights: bool) -> bool:
    """At least as good in everything and better in something."""
    order = [_compare(checkpoint_bytes(row), checkpoint_bytes(other))]
    order.append(0 if is_within_noise(row, other) else _compare(latency_ms(row), latency_ms(other)))
    if not random_weights:
        order.append(_compare(depth_abs_rel(row), depth_abs_rel(other)))
    return max(order) <= 0 and min(order) < 0


def _compare(value: float | None, other: float | None) -> int:
    assert value is not None and other is not None, "the front only holds rows with every number"
    return (value > other) - (value < other)


def _smallest(rows: list[MethodRow]) -> str:
    sized = sorted((row for row in rows if checkpoint_bytes(row)), key=lambda row: checkpoint_bytes(row) or 0)
    if not sized:
        return ""
    best = sized[0]
    limit = 1.01 * (checkpoint_bytes(best) or 0)
    ties = [row.variant for row in sized[1:] if (checkpoint_bytes(row) or 0) <= limit]
    also = f"; within 1 % of it: {', '.join(ties)}" if ties else ""
    return f"Smallest: {best.variant}, {format_bytes(checkpoint_bytes(best))}{_times(best, 'smaller')}{also}."


def _fastest(rows: list[MethodRow]) -> str:
    if not rows:
        return "Fastest: not known, no time was measured."
    ranked = sorted(rows, key=lambda row: latency_ms(row) or 0)
    best = ranked[0]
    noise = [f"{row.variant} ({_milliseconds(row)})" for row in ranked[1:] if is_within_noise(best, row)]
    also = f"; no different within the noise: {', '.join(noise)}" if noise else ""
    return f"Fastest: {best.variant}, {_milliseconds(best)}{_times(best, 'faster')}{also}."


def _closest(rows: list[MethodRow]) -> str:
    ranked = [row for row in rows if row.variant != REFERENCE_VARIANT and depth_abs_rel(row) is not None]
    if not ranked:
        return "Closest to fp32: not known, no variant has a depth error."
    best = min(ranked, key=lambda row: depth_abs_rel(row) or 0)
    return f"Closest to fp32: {best.variant}, depth AbsRel {format_number(depth_abs_rel(best))}."


def _best_trade(timed: list[MethodRow], *, random_weights: bool) -> str:
    front = pareto_front(timed, random_weights=random_weights)
    eligible = [row for row in front if random_weights or (depth_abs_rel(row) or 0) <= DEPTH_LIMIT]
    limit = "" if random_weights else f" with a depth AbsRel of at most {DEPTH_LIMIT:g}"
    if not eligible:
        return f"Best trade: none; no variant with a size and a time is on the front{limit}."
    best = min(eligible, key=lambda row: (checkpoint_bytes(row) or 0) * (latency_ms(row) or 0))
    axes = "size and time alone" if random_weights else "size, time and depth error"
    names = ", ".join(row.variant for row in front)
    verdict = _verdict(best, find_variant(timed, REFERENCE_VARIANT))
    if not random_weights:
        verdict += f", depth AbsRel {format_number(depth_abs_rel(best))}"
    rule = f"Rule: smallest bytes x milliseconds among those that none beats in {axes} ({names}){limit}."
    return f"Best trade{' of ' + axes if random_weights else ''}: {verdict}.\n{rule}"


def _verdict(best: MethodRow, reference: MethodRow | None) -> str:
    if best.variant == REFERENCE_VARIANT:
        return "fp32 itself; no variant is worth it here"
    parts = [_times(best, "smaller"), _times(best, "faster")]
    if reference and is_within_noise(best, reference):
        parts[1] = " (as fast as fp32 within the noise)"
    return best.variant + "".join(parts)


def _times(row: MethodRow, comparative: str) -> str:
    """`, 5.9x smaller than fp32`, or the honest opposite."""
    ratio = row.compression_vs_fp32 if comparative == "smaller" else row.speedup_vs_fp32
    if ratio is None or row.variant == REFERENCE_VARIANT:
        return ""
    if ratio >= 1:
        return f", {format_number(ratio)}x {comparative} than fp32"
    opposite = "larger" if comparative == "smaller" else "slower"
    return f", {format_number(1 / ratio)}x {opposite} than fp32"


def _milliseconds(row: MethodRow) -> str:
    return f"{format_number(latency_ms(row))} ms"
