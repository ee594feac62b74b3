"""Paired timing of two functions in one process: the ratio of the second one's time to the first one's.

The calls alternate, A B A B ..., so both see the same temperature, the same other programs and the same memory. Their
ratio therefore varies far less than the ratio of two processes' medians. The interval of the median ratio says how much
it still varies from pair to pair. It is exact for any distribution of the times if pairs are independent: its ends are
two of the measured ratios (order statistics; David & Nagaraja 2003, Order Statistics, 7.1).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vggt_quant.results.intervals import order_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """What was timed."""

    ratio: float
    """Median over the pairs of the second's time by the first's: above 1, the second is slower."""
    ratio_low: float | None
    """Where the interval of the ratio starts; None for fewer pairs than the level takes (6 for 95 %)."""
    ratio_high: float | None
    """Where it ends."""
    first_ms_median: float
    second_ms_median: float
    pairs_ms: list[tuple[float, float]]
    """Every pair of times, in order."""

    @property
    def is_slower(self) -> bool:
        """Whether the second is slower beyond doubt."""
        return self.ratio_low is not None and self.ratio_low > 1

    @property
    def is_faster(self) -> bool:
        """Whether the second is faster beyond doubt."""
        return self.ratio_high is not None and self.ratio_high < 1


def time_pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    synchronize: Callable[[], None] = lambda: None,
    warmup: int = 3,
    pairs: int = 20,
    seconds: float = 0.0,
    level: float = 0.95,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time both in turn, from an idle device to an idle device.

    Args:
        first: What the other one is compared with.
        second: What is compared.
        synchronize: Waits until the device has done all that was asked of it, e.g. `Engine.synchronize`.
        warmup: Untimed calls of each beforehand.
        pairs: The fewest timed pairs.
        seconds: Go on with further pairs until these are over.
        level: How often the interval holds the true median ratio, at least.
        clock: Seconds.

    Raises:
        ValueError: No pair is asked for.
    """
    if pairs < 1:
        raise ValueError(f"pairs is {pairs}; give 1 or more (6 or more for an interval).")
    for _ in range(warmup):
        for call in (first, second):
            call()
            synchronize()
    return summarize(list(_timed(first, second, synchronize, pairs, seconds, clock)), level=level)


def summarize(pairs_ms: list[tuple[float, float]], *, level: float = 0.95) -> Paired:
    """The ratio of times (first, second) that were taken in turn, and its interval."""
    ratios = [second / first for first, second in pairs_ms]
    low, high = order_interval(ratios, level=level) or (None, None)
    return Paired(
        ratio=statistics.median(ratios),
        ratio_low=low,
        ratio_high=high,
        first_ms_median=statistics.median(first for first, _ in pairs_ms),
        second_ms_median=statistics.median(second for _, second in pairs_ms),
        pairs_ms=pairs_ms,
    )


def _timed(
    first: Callable[[], object],
    second: Callable[[], object],
    synchronize: Callable[[], None],
    pairs: int,
    seconds: float,
    clock: Callable[[], float],
) -> Iterator[tuple[float, float]]:
    begun, count = clock(), 0
    while count < pairs or clock() - begun < seconds:
        yield _milliseconds(first, synchronize, clock), _milliseconds(second, synchronize, clock)
        count += 1


def _milliseconds(call: Callable[[], object], synchronize: Callable[[], None], clock: Callable[[], float]) -> float:
    synchronize()
    started = clock()
    call()
    synchronize()
    return 1e3 * (clock() - started)
