"""Prepare query and key of an attention in place: layer norm per head, then the two-dimensional rotary embedding.

Half of a head turns with y, half with x; in a half of width E/2, element i and element i + E/4 are a pair. A tile holds
the first elements of all pairs, a second tile the second ones, so that no thread needs another's.

Legend: M tokens, H heads, E head width, P tokens of a frame (the table's positions repeat frame after frame).
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadNorms:
    """Weights and biases [E] of the norms of query and key."""

    q_weight_E: Tensor
    q_bias_E: Tensor
    k_weight_E: Tensor
    k_bias_E: Tensor
    eps: float = 1e-5


@triton.jit
def _turn(row, weight, bias, cos, sin, first, eps, E: tl.constexpr):
    """Normalise and turn the heads that start at `row` [H, 1], in place."""
    second = first + E // 4
    x, y = tl.load(row + first).to(tl.float32), tl.load(row + second).to(tl.float32)
    mean = ((tl.sum(x, 1) + tl.sum(y, 1)) / E)[:, None]
    x, y = x - mean, y - mean
    scale = tl.rsqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / E + eps)[:, None]
    x = x * scale * tl.load(weight + first).to(tl.float32) + tl.load(bias + first).to(tl.float32)
    y = y * scale * tl.load(weight + second).to(tl.float32) + tl.load(bias + second).to(tl.float32)
    tl.store(row + first, cast.to(x * cos - y * sin, row.dtype.element_ty))
    tl.store(row + second, cast.to(y * cos + x * sin, row.dtype.element_ty))


@triton.jit
def _norm_rotate(
    qkv, q_weight, q_bias, k_weight, k_bias, table, row_stride, frame_tokens, eps, H: tl.constexpr, E: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, E // 2)[None, :]
    first = pair // (E // 4) * (E // 2) + pair % (E // 4)
    place = token % frame_tokens * E + first
    cos, sin = tl.load(table + place), tl.load(table + frame_tokens * E + place)
    row = qkv + token * row_stride + tl.arange(0, H)[:, None] * E
    _turn(row, q_weight, q_bias, cos, sin, first, eps, E)
    _turn(row + H * E, k_weight, k_bias, cos, sin, first, eps, E)


def norm_rotate(qkv_M3D: Tensor, norms: HeadNorms, table_2PE: Tensor, num_heads: int) -> None:
    """Normalise and turn query and key of packed [query, key, value] rows in place.

    Args:
        qkv_M3D: query, key, value of all heads per token; tokens of whole frames.
        norms: of query and key.
        table_2PE: float32 cosines and sines of `model.layers.rotary_table`.
        num_heads: a power of two, as is E.
    """
    tokens, width = qkv_M3D.shape[0], table_2PE.shape[2]
    assert qkv_M3D.stride(1) == 1 and tokens % table_2PE.shape[1] == 0, (qkv_M3D.shape, table_2PE.shape)
    _norm_rotate[(tokens,)](
        qkv_M3D, norms.q_weight_E, norms.q_bias_E, norms.k_weight_E, norms.k_bias_E, table_2PE, qkv_M3D.stride(0),
        table_2PE.shape[1], norms.eps, H=num_heads, E=width, num_warps=4,
    )  # fmt: skip
