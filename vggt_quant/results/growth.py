"""How time and memory grow with the number of images, and how many images fit into a memory. No torch."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from vggt_quant.results.speed_schema import Capacity, Growth, SizeResult

GIB = 2**30
APART = 1.05
"""Stop searching when the failing count is less than this times the fitting one: each run takes a minute."""


def fit(numbers: Sequence[int], values: Sequence[float], *, degree: int) -> Growth | None:
    """Least squares of the relative errors, without negative terms (Lawson and Hanson 1974).

    Args:
        numbers: Of images, each once.
        values: Positive figures, one for each number.
        degree: 1 or 2; lowered where there are too few numbers to tell.

    Returns:
        The growth, or None for fewer than two numbers.
    """
    assert degree in (1, 2)
    if len(numbers) < 2:
        return None
    powers = range(min(degree, len(numbers) - 1) + 1)
    scaled = np.array(
        [[number**power / value for power in powers] for number, value in zip(numbers, values, strict=True)]
    )
    # Columns of like size: nnls stops at an absolute tolerance.
    sizes = np.linalg.norm(scaled, axis=0)
    terms = nnls(scaled / sizes, np.ones(len(numbers)))[0] / sizes
    constant, linear, quadratic = [*map(float, terms), *[0.0] * (3 - len(terms))]
    return Growth(constant=constant, linear=linear, quadratic=quadratic)


def at(growth: Growth, number: float) -> float:
    """The fitted value at a number of images."""
    return growth.constant + growth.linear * number + growth.quadratic * number**2


def of_memory(sizes: Sequence[SizeResult]) -> Growth | None:
    """The linear growth of the peak, in bytes."""
    done = {size.num_images: size.peak_memory_bytes for size in sizes if size.peak_memory_bytes is not None}
    return fit(list(done), list(done.values()), degree=1)


def of_latency(sizes: Sequence[SizeResult]) -> Growth | None:
    """The quadratic growth of the median time, in ms: attention over all images makes it so."""
    done = {size.num_images: size.latency_ms_median for size in sizes if size.latency_ms_median is not None}
    return fit(list(done), list(done.values()), degree=2)


def capacity(memory_gib: int, sizes: Sequence[SizeResult]) -> Capacity:
    """How many images fit into a memory of `memory_gib` GiB.

    From the largest number that was measured to fit, the fitted growth of the peak goes on; a number that was measured
    not to fit is never reached. What the driver takes for itself is not counted.
    """
    growth, budget = of_memory(sizes), memory_gib * GIB
    peaks = {size.num_images: size.peak_memory_bytes for size in sizes if size.peak_memory_bytes is not None}
    tried = {size.num_images: size.outcome for size in sizes if size.tried_gib == memory_gib}
    too_many = [number for number, peak in peaks.items() if peak > budget]
    too_many += [number for number, outcome in tried.items() if outcome == "out_of_memory"]
    most = min(too_many, default=math.inf) - 1
    fits = max((number for number in peaks if number <= most), default=0)
    if fits == most or (fits in tried and most <= fits * APART):
        return Capacity(memory_gib=memory_gib, num_images=fits, how="measured")
    if growth is None or growth.linear < 1:  # not a byte more per image: nothing that could be continued
        return Capacity(memory_gib=memory_gib, num_images=None, how="fitted")
    more = math.floor((budget - peaks.get(fits, growth.constant)) / growth.linear)
    number = int(min(max(fits + more, fits), most))
    return Capacity(memory_gib=memory_gib, num_images=number, how="measured" if number == fits > 0 else "fitted")
