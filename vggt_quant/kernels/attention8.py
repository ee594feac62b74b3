"""Attention in float8 for one sequence of heads of 64: both products on the float8 units, softmax in float32.

A program takes 64 queries and walks over the keys, 128 at a time. The product of the next keys is started before the
softmax of these, so that matrix units and exponentials work at the same time (as in FlashAttention-3, Shah et al. 2024,
arXiv:2407.08608). Probabilities are multiplied by 2^8 before they become float8, to use its range.

The keys' mean is taken out of every key: it moves all scores of a query alike, which softmax does not see, and what is
left rounds better (Zhang et al. 2025, SageAttention, arXiv:2410.02367). It also puts each query's largest score above
zero, since the scores now average to zero. So |q| times the longest |k| bounds the largest score from above and zero
from below, before any key was seen. Where that bound is at most `RANGE` octaves, a program subtracts it instead of a
running maximum, which saves the maximum, the rescaling of the sums and the wait for both; the largest probability is
then still at least 2^(8 - RANGE), in float8's full precision. Elsewhere a program keeps the running maximum.

Legend: M tokens, N tokens padded with zeros to whole blocks of keys, H heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from vggt_quant.kernels import cast, gemm
from vggt_quant.kernels.reference import FLOAT8, FLOAT8_MAX, TINY

QUERIES, KEYS = 64, 128
MEASURED, STEPS = 128, 4
"""Tokens that a program measures at a time, and how many times."""
RANGE = 13.0
LOG2_E = 1.4426950408889634


@dataclass(frozen=True, kw_only=True, slots=True)
class Float8Heads:
    """Query, key and value of M tokens in float8."""

    q_HNE: Tensor
    k_HNE: Tensor
    """Without the mean of the keys."""
    v_HEN: Tensor
    """Transposed, since the matrix units want the summed dimension innermost."""
    v_scale_H: Tensor
    """float32: v stands for v_HEN times this."""
    k_longest_H: Tensor
    """float32: the length of each head's longest key."""
    tokens: int


@triton.jit(do_not_specialize=["M"])
def _measure(
    qkv, k_sum, v_largest, M, row_stride, H: tl.constexpr, E: tl.constexpr, TOKENS: tl.constexpr, STEPS: tl.constexpr
):
    part, head, e = tl.program_id(0), tl.program_id(1), tl.arange(0, E)
    sums = tl.zeros((TOKENS, E), tl.float32)
    largest = tl.zeros((TOKENS, E), tl.int32)
    for step in range(STEPS):
        token = (part.to(tl.int64) * STEPS + step) * TOKENS + tl.arange(0, TOKENS)[:, None]
        row = qkv + token * row_stride + head * E + e[None, :]
        sums += tl.load(row + H * E, token < M, 0.0).to(tl.float32)
        v = tl.load(row + 2 * H * E, token < M, 0.0).to(tl.float32)
        # As integers, like `cast.largest`: NaN counts as the largest.
        largest = tl.maximum(largest, tl.abs(v).to(tl.int32, bitcast=True))
    tl.store(k_sum + (part * H + head) * E + e, tl.sum(sums, 0))
    tl.store(v_largest + part * H + head, tl.max(tl.max(largest, 1), 0).to(tl.float32, bitcast=True))


def _mean_and_largest(qkv_M3D: Tensor, num_heads: int, width: int) -> tuple[Tensor, Tensor]:
    """The mean of the keys [H E] and the largest magnitude of the values [H], in one pass over both."""
    tokens = len(qkv_M3D)
    parts = triton.cdiv(tokens, MEASURED * STEPS)
    k_sum_PD = qkv_M3D.new_empty(parts, num_heads * width, dtype=torch.float32)
    v_largest_PH = qkv_M3D.new_empty(parts, num_heads, dtype=torch.float32)
    _measure[(parts, num_heads)](
        qkv_M3D, k_sum_PD, v_largest_PH, tokens, qkv_M3D.stride(0),
        H=num_heads, E=width, TOKENS=MEASURED, STEPS=STEPS, num_warps=4,
    )  # fmt: skip
    return k_sum_PD.sum(0) / tokens, v_largest_PH.amax(0)


@triton.jit(do_not_specialize=["M", "padded"])
def _pack(
    qkv, k_mean, v_scale, q_out, k_out, v_out, k_longest, M, padded, row_stride,
    H: tl.constexpr, E: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    head, e = tl.program_id(1), tl.arange(0, E)[None, :]
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None]
    inside = token < M
    row = qkv + token * row_stride + head * E + e
    out = (head * padded + token) * E + e
    tl.store(q_out + out, cast.to_float8(tl.load(row, inside, 0.0).to(tl.float32)))
    k = tl.load(row + H * E, inside, 0.0).to(tl.float32) - tl.load(k_mean + head * E + e)
    k = tl.where(inside, k, 0.0)
    tl.atomic_max(k_longest + head, tl.sqrt(tl.max(tl.sum(k * k, 1), 0)))
    tl.store(k_out + out, cast.to_float8(k))
    v = tl.load(row + 2 * H * E, inside, 0.0).to(tl.float32) / tl.load(v_scale + head)
    # From 2.1 million tokens on, the values' places do not fit into 32 bits.
    line = (head * E + tl.arange(0, E)[:, None]).to(tl.int64)
    place = line * padded + tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)[None, :]
    tl.store(v_out + place, tl.trans(cast.to_float8(v)))


def pack(qkv_M3D: Tensor, num_heads: int) -> Float8Heads:
    """Packed [query, key, value] rows in float8.

    Query and key need no scale: behind a layer norm they are at most 8 times its weight, far below 448; what lies
    above saturates.
    """
    tokens, width = qkv_M3D.shape[0], qkv_M3D.shape[1] // (3 * num_heads)
    padded = -(-tokens // KEYS) * KEYS
    k_mean_D, v_largest_H = _mean_and_largest(qkv_M3D, num_heads, width)
    heads = Float8Heads(
        q_HNE=qkv_M3D.new_empty(num_heads, padded, width, dtype=FLOAT8),
        k_HNE=qkv_M3D.new_empty(num_heads, padded, width, dtype=FLOAT8),
        v_HEN=qkv_M3D.new_empty(num_heads, width, padded, dtype=FLOAT8),
        v_scale_H=(v_largest_H / FLOAT8_MAX).clamp(min=TINY),
        k_longest_H=torch.zeros_like(v_largest_H),
        tokens=tokens,
    )
    _pack[(padded // KEYS, num_heads)](
        qkv_M3D, k_mean_D, heads.v_scale_H, heads.q_HNE, heads.k_HNE, heads.v_HEN,
        heads.k_longest_H, tokens, padded, qkv_M3D.stride(0), H=num_heads, E=width, TOKENS=KEYS, num_warps=4,
    )  # fmt: skip
    return heads


@triton.jit
def _exp2(x):
    if cast.INTERPRETED:
        y = tl.exp2(x)
    else:
        # Without the two instructions per value that denormal results would take.
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return y


@triton.jit
def _block(source, row, column, stride, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr):
    if TMA:
        block = source.load([row, column])
    else:
        block = tl.load(source + (row + tl.arange(0, HEIGHT)[:, None]) * stride + column + tl.arange(0, WIDTH)[None, :])
    return block


@triton.jit
def _softmax(s, scale, top, total, acc, FIXED: tl.constexpr):
    """Probabilities times 2^8, and what is carried on, updated."""
    if FIXED:
        p = _exp2(s * scale - (top - 8.0)[:, None])
        total += tl.sum(p, 1)
    else:
        higher = tl.maximum(top, tl.max(s, 1) * scale)
        p = _exp2(s * scale - (higher - 8.0)[:, None])
        shrink = _exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        acc *= shrink[:, None]
        top = higher
    return cast.to_float8(p), top, total, acc


@triton.jit
def _walk(
    queries, k, v, head, M, padded, scale, top,
    E: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, FIXED: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """All keys: the weighted sum of the values and the sum of the weights."""
    total = tl.zeros((QUERIES,), tl.float32)
    acc = tl.zeros((QUERIES, E), tl.float32)
    s = tl.dot(queries, _block(k, head * padded, 0, E, KEYS, E, TMA).T)
    last = tl.cdiv(M, KEYS) - 1
    for block in tl.range(0, last):
        following = tl.dot(queries, _block(k, head * padded + (block + 1) * KEYS, 0, E, KEYS, E, TMA).T)
        p, top, total, acc = _softmax(s, scale, top, total, acc, FIXED)
        acc = tl.dot(p, _block(v, head * E, block * KEYS, padded, E, KEYS, TMA).T, acc)
        s = following
    s = tl.where(last * KEYS + tl.arange(0, KEYS)[None, :] < M, s, float("-inf"))
    p, top, total, acc = _softmax(s, scale, top, total, acc, FIXED)
    acc = tl.dot(p, _block(v, head * E, last * KEYS, padded, E, KEYS, TMA).T, acc)
    return acc, total


@triton.jit(do_not_specialize=["M", "padded"])
def _attend(
    q, k, v, v_scale, k_longest, out, M, padded, scale, out_stride, RANGE: tl.constexpr,
    E: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    head, first = tl.program_id(1), tl.program_id(0) * QUERIES
    queries = _block(q, head * padded + first, 0, E, QUERIES, E, TMA)
    lengths = queries.to(tl.float32)
    bound = tl.sqrt(tl.sum(lengths * lengths, 1)) * tl.load(k_longest + head) * scale
    if tl.max(bound, 0) <= RANGE:
        acc, total = _walk(queries, k, v, head, M, padded, scale, bound, E, QUERIES, KEYS, True, TMA)
    else:
        lowest = tl.full((QUERIES,), -1e30, tl.float32)
        acc, total = _walk(queries, k, v, head, M, padded, scale, lowest, E, QUERIES, KEYS, False, TMA)
    acc *= (tl.load(v_scale + head) / total)[:, None]
    row = first + tl.arange(0, QUERIES)[:, None]
    place = row.to(tl.int64) * out_stride + head * E + tl.arange(0, E)[None, :]
    tl.store(out + place, cast.to(acc, tl.bfloat16), row < M)


def attend(heads: Float8Heads) -> Tensor:
    """bfloat16 [M, H E]."""
    num_heads, padded, width = heads.q_HNE.shape
    out = heads.q_HNE.new_empty(heads.tokens, num_heads * width, dtype=torch.bfloat16)
    tma = gemm.has_tma(out.device, width)
    q, k, v = heads.q_HNE.flatten(0, 1), heads.k_HNE.flatten(0, 1), heads.v_HEN.flatten(0, 1)
    _attend[(triton.cdiv(heads.tokens, QUERIES), num_heads)](
        TensorDescriptor.from_tensor(q, [QUERIES, width]) if tma else q,
        TensorDescriptor.from_tensor(k, [KEYS, width]) if tma else k,
        TensorDescriptor.from_tensor(v, [width, KEYS]) if tma else v,
        heads.v_scale_H, heads.k_longest_H, out, heads.tokens, padded, LOG2_E * width**-0.5, out.stride(0),
        RANGE=RANGE, E=width, QUERIES=QUERIES, KEYS=KEYS, TMA=tma, num_warps=4, num_stages=2, maxnreg=168,
    )  # fmt: skip
    return out
