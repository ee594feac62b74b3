"""How time and memory grow with the number of images, and how many images fit into a memory. No torch."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from vggt_quant.speed_results import Capacity, Growth, SizeResult

GIB = 2**30


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


def capacity(memory_gib: int, sizes: Sequence[SizeResult], growth: Growth | None) -> Capacity:
    """How many images fit into a memory of `memory_gib`, by the fitted peak and never against what was measured."""
    budget = memory_gib * GIB
    peaks = {size.num_images: size.peak_memory_bytes for size in sizes if size.peak_memory_bytes is not None}
    fits = max((number for number, peak in peaks.items() if peak <= budget), default=0)
    above = [number for number, peak in peaks.items() if peak > budget]
    if above and min(above) == fits + 1:
        return Capacity(memory_gib=memory_gib, num_images=fits, how="measured")
    if growth is None or growth.linear <= 0:
        return Capacity(memory_gib=memory_gib, num_images=None, how="fitted")
    fitted = math.floor((budget - growth.constant) / growth.linear)
    return Capacity(memory_gib=memory_gib, num_images=min([max(fitted, fits), *(n - 1 for n in above)]), how="fitted")
