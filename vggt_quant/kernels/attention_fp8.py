"""Attention in float8 for one sequence of heads of 64: both products on the float8 units, no exponentials.

At heads of 64 the softmax is the limit, not the products. Three things keep it short:

- Scores stay in half precision, in which a GPU computes two at once. They round to a 2000th, float8 queries and keys to
  a 16th.
- Probabilities are written as float8 straight from their logarithm: the bits of e4m3, read as a whole number n, are
  8 (log2 p + 7) where 2^f is taken as 1 + f between two powers of two (Schraudolph 1999, Neural Computation 11, 853).
  That is up to 6 % too large, but softmax divides by the sum of the same numbers, and about 2 % are left, on top of
  2.6 % from rounding. Below 2^-6, where float8's steps stop shrinking, p comes out too small, and below 2^-7 as zero.
  A multiply-add in half precision rounds to n + 1024, whose low byte is n. The same bits, seven places higher, are p in
  half precision, for the sum.
- Values lie in memory in the order in which one product leaves the probabilities in the registers for the next.

One score to its byte, with heads of 64 (c = 8 log2(e) / 8 = 1.4424 in half precision) and a query whose scores are at
most 20 eighths of an octave (|q| |k| c = 20), so that 1150 - 0.5 - 20 = 1129.5 is added:

    score  q k = 10    10 c + 1129.5 = 1143.9   rounded to half precision, whose step is 1 there: 1144
    bits of 1144       0x6478                   0x6400 is 1024; the low byte is n = 0x78 = 120
    n as float8 e4m3   0x78: 2^(15 - 7) = 256   by the formula 8 (log2 p + 7) = 120: p = 2^8
    n << 7 as half     0x3c00 = 1.0             p / 256, what the sum adds

What is subtracted from the scores must keep the largest probability within float8, 2^8.75 at most. Since the keys have
no mean (`attention_fp8_pack`), the scores of a query average to about zero: |q| times the longest |k| bounds the
largest from above and zero from below, before any key was seen. Where that bound is at most `RANGE`, a program
subtracts it; the largest probability is then still in float8's full precision. Elsewhere it subtracts a running
maximum.

Legend: M tokens, N tokens padded with zeros to whole blocks of keys, H heads, E head width.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from vggt_quant.kernels import cast, gemm
from vggt_quant.kernels.attention_fp8_pack import BLOCK, Float8Heads, reorder

QUERIES, KEYS = 128, BLOCK
WARPS, STAGES = 8, 3
RANGE = 13.0
"""Octaves, that is powers of two of a probability."""
LOG2_E = 1.4426950408889634
BASE = tl.constexpr(1024.0)
"""From here to 2048 the numbers of half precision are the whole ones, and their low byte counts up from 0."""
HIGHEST = tl.constexpr(1024.0 + 126.0)
"""`BASE` and the bits of 448, float8's largest: 0x7e = 126."""
AS_HALF = tl.constexpr(128.0)
"""Seven places to the left: float8's exponent and fraction then lie where those of half precision are."""
HALF_ROUNDING = tl.constexpr(2.0**-10)
"""More than the relative error of two roundings to half precision, 2^-11 each."""
LARGEST_SCORE = tl.constexpr(44000.0)
"""Scores above count as this much, 8,000 octaves, since half precision has no more eighths of octaves.

Where |q| |k| is larger, a score may also overflow on its way, and a query without one above -40,000 becomes NaN.
"""
UNKNOWN_SHIFT = tl.constexpr(60000.0)
"""The shift before any score was seen: above that of every score from -40,000 on, and a number in half precision."""


@triton.jit
def _probabilities(y):
    """The float8 whose bits are y - 1024, 0 below, and its 2^-8 in half precision, in which y is, HIGHEST at most."""
    if cast.INTERPRETED:
        n = tl.maximum(y.to(tl.float32) - BASE, 0.0)
        p, half = n.to(tl.uint8), (n * AS_HALF).to(tl.uint16).to(tl.float16, bitcast=True)
    else:
        # Two values to a register, what Triton does not do by itself here: 4 of them take 5 instructions instead of 17.
        #   max with 0x6400, twice   at least BASE
        #   prmt 0x6420              bytes 0, 2, 4, 6 of the two registers: the four low bytes n
        #   mad 128, 0xffce0000      n << 7 in each half: 128 (0x6400 + n) = 0x320000 + 128 n, of which 0x320000 is
        #                            subtracted; what the upper half's 0x6400 gives lies above the register
        p, half = tl.inline_asm_elementwise(
            "{ .reg .b32 a, b, least; mov.b32 least, 0x64006400; "
            "max.NaN.f16x2 a, $3, least; max.NaN.f16x2 b, $4, least; prmt.b32 $0, a, b, 0x6420; "
            "mad.lo.u32 $1, a, 128, 0xffce0000; mad.lo.u32 $2, b, 128, 0xffce0000; }",
            "=r,=r,=r,r,r", [y], (tl.int8, tl.float16), is_pure=True, pack=4,
        )  # fmt: skip
    return p.to(tl.float8e4nv, bitcast=True), half


@triton.jit
def _fold(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr, MAXIMUM: tl.constexpr):
    """Sum or maximum of 16 columns each, halves onto halves: so registers of two values meet as they are."""
    for i in tl.static_range(1, 5):
        a, b = tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLUMNS >> i)), (0, 2, 1)))
        x = tl.maximum(a, b) if MAXIMUM else a + b
    return x


@triton.jit
def _block(source, row, column, stride, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr):
    if TMA:
        block = source.load([row, column])
    else:
        block = tl.load(source + (row + tl.arange(0, HEIGHT)[:, None]) * stride + column + tl.arange(0, WIDTH)[None, :])
    return block


@triton.jit
def _add(s, values, c, shift, total, acc, QUERIES: tl.constexpr, KEYS: tl.constexpr, FIXED: tl.constexpr):
    """A block of keys: shift, the sum of the weights and the weighted sum of the values, updated."""
    if not FIXED:
        s = tl.minimum(s, tl.full((1, 1), LARGEST_SCORE, tl.float16), propagate_nan=tl.PropagateNan.ALL)
        top = tl.max(_fold(s, QUERIES, KEYS, True), 1).to(tl.float32)
        lower = HIGHEST - top * c
        # Less the roundings of a product and a sum to half precision, so that no value exceeds HIGHEST.
        lower = tl.minimum(lower - tl.abs(lower) * HALF_ROUNDING, shift).to(tl.float16).to(tl.float32)
        shrink = tl.exp2((lower - shift) * 0.125)[:, None]
        total *= shrink
        acc *= shrink
        shift = lower
    p, half = _probabilities(s * tl.full((1, 1), c, tl.float16) + shift.to(tl.float16)[:, None])
    total += _fold(half, QUERIES, KEYS, False).to(tl.float32)
    # The units add float8 products in some 14 bits, in which thousands of small ones vanish: a block, then float32.
    acc = tl.dot(reorder(p, QUERIES, KEYS), values.T, acc, max_num_imprecise_acc=KEYS)
    return shift, total, acc


@triton.jit
def _walk(
    queries, k, v, head, M, padded, c, shift,
    E: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, FIXED: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """All keys: the weighted sum of the values and the sum of the weights."""
    total = tl.zeros((QUERIES, KEYS // 16), tl.float32)
    acc = tl.zeros((QUERIES, E), tl.float32)
    # The block of keys that may be incomplete comes first, since nothing else is in the registers then.
    last = tl.cdiv(M, KEYS) - 1
    s = tl.dot(queries, _block(k, head * padded + last * KEYS, 0, E, KEYS, E, TMA).T, out_dtype=tl.float16)
    s = tl.where(last * KEYS + tl.arange(0, KEYS)[None, :] < M, s, float("-inf"))
    values = _block(v, head * E, last * KEYS, padded, E, KEYS, TMA)
    shift, total, acc = _add(s, values, c, shift, total, acc, QUERIES, KEYS, FIXED)
    for block in tl.range(0, last):
        s = tl.dot(queries, _block(k, head * padded + block * KEYS, 0, E, KEYS, E, TMA).T, out_dtype=tl.float16)
        values = _block(v, head * E, block * KEYS, padded, E, KEYS, TMA)
        shift, total, acc = _add(s, values, c, shift, total, acc, QUERIES, KEYS, FIXED)
    return acc, tl.sum(total, 1) * 256.0


@triton.jit(do_not_specialize=["M", "padded"])
def _attend(
    q, k, v, v_scale, k_longest, out, M, padded, c, out_stride,
    RANGE: tl.constexpr, E: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    head, first = tl.program_id(1), tl.program_id(0) * QUERIES
    queries = _block(q, head * padded + first, 0, E, QUERIES, E, TMA)
    lengths = queries.to(tl.float32)
    bound = tl.sqrt(tl.sum(lengths * lengths, 1)) * tl.load(k_longest + head) * c
    if tl.max(bound, 0) <= 8.0 * RANGE:
        shift = cast.nearest(HIGHEST - 0.5 - bound)
        acc, total = _walk(queries, k, v, head, M, padded, c, shift, E, QUERIES, KEYS, True, TMA)
    else:
        unknown = tl.full((QUERIES,), UNKNOWN_SHIFT, tl.float32)
        acc, total = _walk(queries, k, v, head, M, padded, c, unknown, E, QUERIES, KEYS, False, TMA)
    acc *= (tl.load(v_scale + head) / total)[:, None]
    row = first + tl.arange(0, QUERIES)[:, None]
    place = row.to(tl.int64) * out_stride + head * E + tl.arange(0, E)[None, :]
    tl.store(out + place, cast.to(acc, tl.bfloat16), row < M)


def attend(heads: Float8Heads) -> Tensor:
    """bfloat16 [M, H E]."""
    num_heads, padded, width = heads.q_HNE.shape
    out = heads.q_HNE.new_empty(heads.tokens, num_heads * width, dtype=torch.bfloat16)
    tma = gemm.has_tma(out.device, width)
    # Scores times c are eighths of octaves, as float8's bits count them; a number that half precision has.
    c = torch.tensor(8 * LOG2_E * width**-0.5, dtype=torch.float16).item()
    q, k, v = heads.q_HNE.flatten(0, 1), heads.k_HNE.flatten(0, 1), heads.v_HEN.flatten(0, 1)
    _attend[(triton.cdiv(heads.tokens, QUERIES), num_heads)](
        TensorDescriptor.from_tensor(q, [QUERIES, width]) if tma else q,
        TensorDescriptor.from_tensor(k, [KEYS, width]) if tma else k,
        TensorDescriptor.from_tensor(v, [width, KEYS]) if tma else v,
        heads.v_scale_H, heads.k_longest_H, out, heads.tokens, padded, c, out.stride(0),
        RANGE=RANGE, E=width, QUERIES=QUERIES, KEYS=KEYS, TMA=tma, num_warps=WARPS, num_stages=STAGES, maxnreg=128,
    )  # fmt: skip
    return out
