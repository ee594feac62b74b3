"""Query, key and value of one sequence in float8, as `attention_fp8` multiplies them.

The keys' mean is subtracted from every key. That shifts all scores of a query equally, which softmax ignores, and the
remainder rounds better (Zhang et al. 2025, SageAttention, arXiv:2410.02367).

Legend: M tokens, N tokens padded with zeros to whole blocks of keys, H heads, E head width, P parts that are measured.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast
from vggt_quant.kernels.torch_reference import FLOAT8

BLOCK = 128
"""Tokens that a program packs; N is a multiple of it."""
MEASURED, STEPS = 128, 4
"""Tokens that a program measures at a time, and how many times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Float8Heads:
    """Query, key and value of M tokens in float8."""

    q_HNE: Tensor
    k_HNE: Tensor
    """Without the mean of the keys."""
    v_HEN: Tensor
    """Transposed, since matrix units want the summed dimension innermost; each 16 tokens in the order of `reorder`."""
    v_scale_H: Tensor
    """float32: v stands for v_HEN times this."""
    k_longest_H: Tensor
    """float32: the length of the longest row of k_HNE."""
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


@triton.jit(do_not_specialize=["M", "parts"])
def _combine(
    k_sum, v_largest, k_mean, v_scale, k_longest, M, parts, H: tl.constexpr, E: tl.constexpr, PARTS: tl.constexpr
):
    head, e = tl.program_id(0), tl.arange(0, E)
    sums = tl.zeros((PARTS, E), tl.float32)
    largest = tl.zeros((PARTS,), tl.int32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        sums += tl.load(k_sum + (part[:, None] * H + head) * E + e[None, :], part[:, None] < parts, 0.0)
        value = tl.load(v_largest + part * H + head, part < parts, 0.0)
        largest = tl.maximum(largest, value.to(tl.int32, bitcast=True))
    tl.store(k_mean + head * E + e, tl.sum(sums, 0) / M)
    tl.store(v_scale + head, cast.positive(tl.max(largest, 0).to(tl.float32, bitcast=True) * (1.0 / 448.0)))
    tl.store(k_longest + head, 0.0)


def _measured(qkv_M3D: Tensor, num_heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each head the mean of the keys [H E], the scale of the values [H], and a zero [H]."""
    tokens = len(qkv_M3D)
    parts = triton.cdiv(tokens, MEASURED * STEPS)
    k_sum_PD = qkv_M3D.new_empty(parts, num_heads * width, dtype=torch.float32)
    v_largest_PH = qkv_M3D.new_empty(parts, num_heads, dtype=torch.float32)
    _measure[(parts, num_heads)](
        qkv_M3D, k_sum_PD, v_largest_PH, tokens, qkv_M3D.stride(0),
        H=num_heads, E=width, TOKENS=MEASURED, STEPS=STEPS, num_warps=4,
    )  # fmt: skip
    k_mean_D = k_sum_PD.new_empty(num_heads * width)
    v_scale_H, k_longest_H = k_sum_PD.new_empty(2, num_heads)
    _combine[(num_heads,)](
        k_sum_PD, v_largest_PH, k_mean_D, v_scale_H, k_longest_H, tokens, parts,
        H=num_heads, E=width, PARTS=64, num_warps=4,
    )  # fmt: skip
    return k_mean_D, v_scale_H, k_longest_H


@triton.jit
def reorder(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of each 16 columns 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15.

    A thread has 2 neighbours of one product and wants 4 for the next: those that this puts side by side are its own.
    """
    x = tl.reshape(x, (ROWS, COLUMNS // 16, 2, 4, 2))
    return tl.reshape(tl.permute(x, (0, 1, 3, 2, 4)), (ROWS, COLUMNS))


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
    k = cast.to_float8(tl.where(inside, k, 0.0))
    tl.store(k_out + out, k)
    k = k.to(tl.float32)
    tl.atomic_max(k_longest + head, tl.sqrt(tl.max(tl.sum(k * k, 1), 0)))
    v = tl.load(row + 2 * H * E, inside, 0.0).to(tl.float32) / tl.load(v_scale + head)
    # From 2.1 million tokens on, the values' places do not fit into 32 bits.
    line = (head * E + tl.arange(0, E)[:, None]).to(tl.int64)
    place = line * padded + tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)[None, :]
    tl.store(v_out + place, reorder(tl.trans(cast.to_float8(v)), E, TOKENS))


def pack(qkv_M3D: Tensor, num_heads: int) -> Float8Heads:
    """Packed [query, key, value] rows in float8.

    Query and key need no scale: after a layer norm they are at most 8 times its weight, far below 448; what lies
    above saturates.
    """
    tokens, width = qkv_M3D.shape[0], qkv_M3D.shape[1] // (3 * num_heads)
    padded = -(-tokens // BLOCK) * BLOCK
    k_mean_D, v_scale_H, k_longest_H = _measured(qkv_M3D, num_heads, width)
    heads = Float8Heads(
        q_HNE=qkv_M3D.new_empty(num_heads, padded, width, dtype=FLOAT8),
        k_HNE=qkv_M3D.new_empty(num_heads, padded, width, dtype=FLOAT8),
        v_HEN=qkv_M3D.new_empty(num_heads, width, padded, dtype=FLOAT8),
        v_scale_H=v_scale_H,
        k_longest_H=k_longest_H,
        tokens=tokens,
    )
    _pack[(padded // BLOCK, num_heads)](
        qkv_M3D, k_mean_D, v_scale_H, heads.q_HNE, heads.k_HNE, heads.v_HEN,
        k_longest_H, tokens, padded, qkv_M3D.stride(0), H=num_heads, E=width, TOKENS=BLOCK, num_warps=4,
    )  # fmt: skip
    return heads
