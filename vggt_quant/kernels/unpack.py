"""Packed weights made ready for a matrix product of another type, once per call, into memory that is free again after.

Legend: N outputs, K inputs, G groups of inputs, B = ceil(K / 2) bytes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast
from vggt_quant.kernels.operands import Kind
from vggt_quant.kernels.reference import FLOAT8

_DTYPES = {"bfloat16": torch.bfloat16, "int8": torch.int8, "float8": FLOAT8}


@triton.jit
def _int4(packed, scale, zero, row_scale, out, K, B, G, group, KIND: tl.constexpr, BYTES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    byte = tl.program_id(1) * BYTES + tl.arange(0, BYTES)
    pairs = tl.load(packed + row * B + byte, byte < B, 0).to(tl.int32)
    value = tl.interleave(pairs & 15, (pairs >> 4) & 15).to(tl.float32)
    column = tl.program_id(1) * 2 * BYTES + tl.arange(0, 2 * BYTES)
    inside = column < K
    place = row * G + column // group
    if zero is not None:
        value -= tl.load(zero + place, inside, 0).to(tl.float32)
    else:
        value -= 8.0
    value *= tl.load(scale + place, inside, 0.0).to(tl.float32)
    # Exact division: with one group a row, an eighth of the quotients are halfway between two whole numbers.
    if KIND == "int8":
        value = cast.nearest(tl.div_rn(value, tl.load(row_scale + row))).to(tl.int8)
    elif KIND == "float8":
        value = cast.to_float8(tl.div_rn(value, tl.load(row_scale + row)))
    else:
        value = cast.to(value, tl.bfloat16)
    tl.store(out + row * K + column, value, inside)


def unpack_int4(
    packed_NB: Tensor,
    scale_NG: Tensor,
    zero_point_NG: Tensor | None,
    columns: int,
    group_size: int,
    kind: Kind,
    row_scale_N: Tensor | None = None,
) -> Tensor:
    """Packed int4 as bfloat16, or as int8 or float8 under a scale per row: [N, columns]."""
    rows, width = packed_NB.shape
    out = packed_NB.new_empty(rows, columns, dtype=_DTYPES[kind])
    block = min(1024, triton.next_power_of_2(width))
    _int4[(rows, triton.cdiv(width, block))](
        packed_NB, scale_NG, zero_point_NG, row_scale_N, out, columns, width, scale_NG.shape[1], group_size,
        KIND=kind, BYTES=block, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _int8(weight, scale, zero, out, K, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < K
    value = tl.load(weight + row * K + column, inside, 0).to(tl.float32)
    if zero is not None:
        value -= tl.load(zero + row).to(tl.float32)
    value *= tl.load(scale + row).to(tl.float32)
    tl.store(out + row * K + column, cast.to(value, tl.bfloat16), inside)


def unpack_int8(weight_NK: Tensor, scale_N1: Tensor, zero_point_N1: Tensor | None) -> Tensor:
    """int8 with a scale (and zero point) per row as bfloat16 [N, K]."""
    rows, columns = weight_NK.shape
    out = weight_NK.new_empty(rows, columns, dtype=torch.bfloat16)
    block = min(2048, triton.next_power_of_2(columns))
    _int8[(rows, triton.cdiv(columns, block))](weight_NK, scale_N1, zero_point_N1, out, columns, BLOCK=block)
    return out
