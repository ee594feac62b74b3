"""Query and key of an attention made ready in place: layer norm per head, then the two-dimensional rotary embedding.

Legend: M tokens, H heads, E head width, P tokens of a frame (the table's positions repeat frame after frame).
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast

TOKENS, WARPS = 1, 4
"""Of a program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadNorms:
    """Weights and biases [E] of the norms of query and key."""

    q_weight_E: Tensor
    q_bias_E: Tensor
    k_weight_E: Tensor
    k_bias_E: Tensor
    eps: float = 1e-5


@triton.jit
def _normed(x, partner, weight, bias, eps, e, partner_e, E: tl.constexpr):
    mean = tl.sum(x, 1) / E
    centred = x - mean[:, None]
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / E + eps)[:, None]
    own = centred * scale * tl.load(weight + e).to(tl.float32) + tl.load(bias + e).to(tl.float32)
    other_weight, other_bias = tl.load(weight + partner_e).to(tl.float32), tl.load(bias + partner_e).to(tl.float32)
    return own, (partner - mean[:, None]) * scale * other_weight + other_bias


@triton.jit(do_not_specialize=["M"])
def _norm_rotate(
    qkv, q_weight, q_bias, k_weight, k_bias, table, M, row_stride, frame_tokens, eps,
    H: tl.constexpr, E: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    # One row of a tile is one head of one token.
    index = tl.arange(0, TOKENS * H)[:, None]
    token = tl.program_id(0).to(tl.int64) * TOKENS + index // H
    inside = token < M
    position, e = token % frame_tokens, tl.arange(0, E)[None, :]
    # A half of the head turns with y, the other with x; in a half of width E/2, i and i + E/4 are a pair.
    partner_e = e ^ (E // 4)
    sign = tl.where((e // (E // 4)) % 2 == 0, -1.0, 1.0)
    cos = tl.load(table + position * E + e, inside, 0.0)
    sin = tl.load(table + (frame_tokens + position) * E + e, inside, 0.0) * sign
    row = qkv + token * row_stride + index % H * E
    q = tl.load(row + e, inside, 0.0).to(tl.float32)
    q_partner = tl.load(row + partner_e, inside, 0.0).to(tl.float32)
    row_k = row + H * E
    k = tl.load(row_k + e, inside, 0.0).to(tl.float32)
    k_partner = tl.load(row_k + partner_e, inside, 0.0).to(tl.float32)
    q, q_partner = _normed(q, q_partner, q_weight, q_bias, eps, e, partner_e, E)
    k, k_partner = _normed(k, k_partner, k_weight, k_bias, eps, e, partner_e, E)
    # Every thread has read before any writes.
    tl.debug_barrier()
    tl.store(row + e, cast.to(q * cos + q_partner * sin, qkv.dtype.element_ty), inside)
    tl.store(row_k + e, cast.to(k * cos + k_partner * sin, qkv.dtype.element_ty), inside)


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
    _norm_rotate[(triton.cdiv(tokens, TOKENS),)](
        qkv_M3D, norms.q_weight_E, norms.q_bias_E, norms.k_weight_E, norms.k_bias_E, table_2PE, tokens,
        qkv_M3D.stride(0), table_2PE.shape[1], norms.eps, H=num_heads, E=width, TOKENS=TOKENS, num_warps=WARPS,
    )  # fmt: skip
