"""Roundings that the kernels share, and what Triton's interpreter (TRITON_INTERPRET=1, on the CPU) gets wrong.

The interpreter loses the carry when it rounds to float8, and multiplies bfloat16 as if its bits were integers; the
kernels step around both where they are interpreted, and only there.
"""

import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


@triton.jit
def nearest(x):
    """Nearest whole number of |x| < 2^22, ties to even as in torch.round: 1.5 * 2^23 leaves no bits for a fraction."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def to_float8(x):
    """float32 to float8 e4m3, saturating at its largest value."""
    x = tl.minimum(tl.maximum(x, -448.0), 448.0)
    if INTERPRETED:
        # Round to three bits after the leading one beforehand, so that the conversion has nothing left to round.
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        # Below 2^-6 the steps stop shrinking: 2^-9.
        small = nearest(x * 512.0) / 512.0
        x = tl.where(tl.abs(x) < 0.015625, small, bits.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@triton.jit
def gelu(x):
    """Exact GELU, by erf."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
