"""Two callables timed in turn: the order of calls, the ratio, and how often its interval holds the true one."""

import math
import random

import pytest
from scipy.stats import binom

from vggt_quant.benchmark.paired import summarize, time_pairs
from vggt_quant.results.intervals import order_interval


class Clock:
    """A clock that stands still but for what calls add to it."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def call(self, name, seconds):
        def run():
            self.calls.append(name)
            self.now += seconds() if callable(seconds) else seconds

        return run


def test_both_are_warmed_up_and_then_called_in_turn_between_waits_for_the_device():
    clock = Clock()
    wait = clock.call("wait", 0.0)
    done = time_pairs(
        clock.call("A", 2), clock.call("B", 3), synchronize=wait, warmup=1, pairs=6, clock=lambda: clock.now
    )
    assert clock.calls == ["A", "wait", "B", "wait", *(["wait", "A", "wait", "wait", "B", "wait"] * 6)]
    assert done.pairs_ms == [(2000.0, 3000.0)] * 6
    assert (done.ratio, done.ratio_low, done.ratio_high) == (1.5, 1.5, 1.5)
    assert (done.first_ms_median, done.second_ms_median) == (2000.0, 3000.0)
    assert (done.is_slower, done.is_faster) == (True, False)


def test_what_the_device_still_does_when_a_call_returns_counts_for_that_call():
    clock = Clock()
    left = []
    first = lambda: left.append(1.0)  # noqa: E731 (hands work over and returns at once)
    second = lambda: left.append(2.0)  # noqa: E731

    def wait():
        clock.now += sum(left)
        left.clear()

    assert time_pairs(first, second, synchronize=wait, pairs=6, clock=lambda: clock.now).ratio == 2


def test_pairs_go_on_until_the_seconds_are_over_and_never_end_within_a_pair():
    clock = Clock()
    done = time_pairs(clock.call("A", 1), clock.call("B", 1), warmup=0, pairs=2, seconds=9, clock=lambda: clock.now)
    assert len(done.pairs_ms) == 5 and clock.calls == ["A", "B"] * 5
    done = time_pairs(clock.call("A", 1), clock.call("B", 1), warmup=0, pairs=7, seconds=3, clock=lambda: clock.now)
    assert len(done.pairs_ms) == 7


def test_a_drift_that_both_share_does_not_reach_the_ratio():
    pairs = [(1.0 + 0.5 * i, 1.1 * (1.0 + 0.5 * i)) for i in range(20)]
    done = summarize(pairs)
    assert done.ratio == pytest.approx(1.1) and done.is_slower
    assert done.ratio_high - done.ratio_low < 1e-12


def test_fewer_than_6_pairs_have_no_interval_and_no_verdict():
    done = summarize([(1.0, 2.0)] * 5)
    assert (done.ratio, done.ratio_low, done.ratio_high) == (2.0, None, None)
    assert not done.is_slower and not done.is_faster
    assert summarize([(1.0, 2.0)] * 6).is_slower
    with pytest.raises(ValueError, match="pairs is 0; give 1 or more"):
        time_pairs(lambda: None, lambda: None, pairs=0)


def test_swapping_the_two_inverts_ratio_and_interval():
    generator = random.Random(0)
    pairs = [(generator.lognormvariate(0, 0.1), generator.lognormvariate(0.05, 0.1)) for _ in range(21)]
    forth, back = summarize(pairs), summarize([(second, first) for first, second in pairs])
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert (back.ratio_low, back.ratio_high) == pytest.approx((1 / forth.ratio_high, 1 / forth.ratio_low))


@pytest.mark.parametrize("count", [6, 8, 9, 20, 31])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_the_narrowest_of_its_kind_that_holds_the_median_often_enough(count, level):
    found = order_interval(list(range(1, count + 1)), level=level)
    low, high = found
    assert low + high == count + 1
    coverage = {k: 1 - 2 * binom.cdf(k - 1, count, 0.5) for k in (low, low + 1)}
    assert coverage[low] >= level > coverage[low + 1]


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda generator: math.exp(generator.gauss(0.1, 0.2)), math.exp(0.1)),
        (lambda generator: 1 + generator.expovariate(1), 1 + math.log(2)),
        (lambda generator: generator.paretovariate(1.2), 2 ** (1 / 1.2)),
    ],
    ids=["symmetric", "skewed", "heavy tail"],
)
def test_the_interval_holds_the_true_ratio_as_often_as_it_says(draw, true):
    """4,000 runs of 20 pairs: exactly 95.9 %, give or take four standard errors of that many runs, 1.3 points."""
    generator = random.Random(1)
    runs = [summarize([(1.0, draw(generator)) for _ in range(20)]) for _ in range(4000)]
    hits = sum(done.ratio_low <= true <= done.ratio_high for done in runs)
    assert hits / len(runs) == pytest.approx(0.9586, abs=0.0126)
