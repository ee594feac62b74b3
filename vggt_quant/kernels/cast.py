"""Roundings that the kernels share, and workarounds for Triton's interpreter (TRITON_INTERPRET=1, on the CPU).

The interpreter truncates instead of rounding to bfloat16, loses the carry when it rounds to float8, and multiplies
bfloat16 as if its bits were integers. The kernels work around all three, only when they are interpreted.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def nearest(x):
    """Nearest whole number of |x| < 2^22, ties to even as in torch.round: 1.5 * 2^23 leaves no bits for a fraction."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def to(x, dtype: tl.constexpr):
    """float32 to another floating type, rounded to nearest."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def relu(x):
    """ReLU that lets NaN through, as PyTorch's does."""
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def to_float8(x):
    """float32 to float8 e4m3, saturating at its largest value, as the GPU's own conversion does."""
    if INTERPRETED:
        x = tl.minimum(tl.maximum(x, -448.0), 448.0)
        # Round to three bits after the leading one beforehand, so that the conversion has nothing left to round.
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        # Below 2^-6 the steps stop shrinking: 2^-9.
        small = nearest(x * 512.0) / 512.0
        x = tl.where(tl.abs(x) < 0.015625, small, bits.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@triton.jit
def largest(x):
    """Largest magnitude of a row; NaN if there is a NaN, which `tl.max` would pass over.

    Bits of positive floats order as integers do, and those of NaN lie above infinity.
    """
    return tl.max(tl.abs(x).to(tl.int32, bitcast=True), 0).to(tl.float32, bitcast=True)


@triton.jit
def positive(scale):
    """A scale that can be divided by: 1e-30 for a row of zeros; NaN stays."""
    return tl.where(scale < 1e-30, 1e-30, scale)


@triton.jit
def gelu(x):
    """GELU, x times the normal distribution function, whose tail is Abramowitz and Stegun's 7.1.26: |error| < 1e-7.

    `tl.erf` is as exact and takes three times as many instructions, more than the memory traffic of the kernel hides.
    """
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail = 0.5 * series * tl.exp2(-1.4426950408889634 * z * z)
    return x * tl.where(x < 0.0, tail, 1.0 - tail)
