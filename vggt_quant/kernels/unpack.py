"""Unpack weights to the dtype of a matrix product, at every call, into temporary memory.

Legend: N outputs, K inputs, G groups of inputs, B = ceil(K / 2) bytes.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast, torch_reference
from vggt_quant.kernels.operands import Kind
from vggt_quant.kernels.torch_reference import FLOAT8

_DTYPES = {"bfloat16": torch.bfloat16, "int8": torch.int8, "float8": FLOAT8}


@triton.jit
def _int4(
    packed, scale, zero, row_scale, out, groups, K, B, G,
    GROUP: tl.constexpr, KIND: tl.constexpr, GROUPS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    # Groups in a row of their own, whatever row of the weight they are of: one scale each to load and to divide.
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    is_group = group < groups
    row, first = group // G, group % G * GROUP
    byte = tl.program_id(1) * BYTES + tl.arange(0, BYTES)
    inside = is_group[:, None] & (byte < GROUP // 2)[None, :] & (first[:, None] // 2 + byte[None, :] < B)
    place = row.to(tl.int64) * B + first // 2
    pairs = tl.load(packed + place[:, None] + byte[None, :], inside, 0).to(tl.int32)
    value = tl.interleave(pairs & 15, (pairs >> 4) & 15).to(tl.float32)
    if zero is not None:
        value -= tl.load(zero + group, is_group, 0).to(tl.float32)[:, None]
    else:
        value -= 8.0
    factor = tl.load(scale + group, is_group, 0.0).to(tl.float32)
    if KIND != "bfloat16":
        factor = tl.div_rn(factor, tl.load(row_scale + row, is_group, 1.0))
    value *= factor[:, None]
    if KIND == "int8":
        value = cast.nearest(value).to(tl.int8)
    elif KIND == "float8":
        value = cast.to_float8(value)
    else:
        value = cast.to(value, tl.bfloat16)
    column = tl.program_id(1) * 2 * BYTES + tl.arange(0, 2 * BYTES)
    inside = is_group[:, None] & (column < GROUP)[None, :] & (first[:, None] + column[None, :] < K)
    tl.store(out + (row.to(tl.int64) * K + first)[:, None] + column[None, :], value, inside)


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
    (rows, width), per_row = packed_NB.shape, scale_NG.shape[1]
    stored = packed_NB, scale_NG, zero_point_NG, columns, group_size
    if group_size % 2 and per_row > 1:  # a byte of two groups: nobody's choice, so not the kernel's
        if kind == "bfloat16":
            return torch_reference.dequantize_int4(*stored, torch.bfloat16)
        return torch_reference.int4_to_rows(*stored, kind)[0]
    group_size += group_size % 2
    out = packed_NB.new_empty(rows, columns, dtype=_DTYPES[kind])
    per_group = min(group_size // 2, width)
    block = min(1024, triton.next_power_of_2(per_group))
    groups = 1024 // block
    # Fused to one operation, product and rounding would round other values than the twin's halfway between two.
    _int4[(triton.cdiv(rows * per_row, groups), triton.cdiv(per_group, block))](
        packed_NB, scale_NG, zero_point_NG, row_scale_N, out, rows * per_row, columns, width, per_row,
        GROUP=group_size, KIND=kind, GROUPS=groups, BYTES=block, num_warps=4, enable_fp_fusion=False,
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
