"""Producers: kernels that make the operand of a matrix product, quantization to 8 bits included.

A producer applies layer norm, GELU or nothing to each row (a token). It writes the row as bfloat16, or as 8-bit values
with a scale per row that is computed at run time ("dynamic, per token"). It passes over memory once.

Legend: M tokens, K width.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import torch
import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast
from vggt_quant.kernels.operands import Kind, Operand, Rows
from vggt_quant.kernels.torch_reference import FLOAT8


@triton.jit
def _produce(
    x, update, gamma, weight, bias, out, scale, zero, total, frame_rows, frame_stride, row_stride, K, eps,
    STEP: tl.constexpr, KIND: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    # One row a program: more were slower at every width (H100).
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < K
    place = row // frame_rows * frame_stride + row % frame_rows * row_stride + column
    dense = row * K + column
    y = tl.load(x + place, inside, 0.0).to(tl.float32)
    if update is not None:
        change = tl.load(update + dense, inside, 0.0).to(tl.float32)
        y += change * tl.load(gamma + column, inside, 0.0).to(tl.float32)
        tl.store(x + place, cast.to(y, x.dtype.element_ty), inside)
    if STEP == "layer_norm":
        centred = tl.where(inside, y - tl.sum(y, 0) / K, 0.0)
        y = centred * tl.rsqrt(tl.sum(centred * centred, 0) / K + eps)
        y *= tl.load(weight + column, inside, 0.0).to(tl.float32)
        y += tl.load(bias + column, inside, 0.0).to(tl.float32)
    elif STEP == "gelu":
        y = cast.gelu(y)
    if KIND == "int8":
        s = cast.positive(cast.largest(y) / 127.0)
        y = cast.nearest(y * (1.0 / s))
        tl.store(scale + row, s)
    elif KIND == "int8_asymmetric":
        low, high = -cast.largest(tl.where(y > 0.0, 0.0, y)), cast.largest(tl.where(y < 0.0, 0.0, y))
        s = cast.positive((high - low) / 255.0)
        z = cast.nearest(-128.0 - low / s)
        y = tl.minimum(tl.maximum(cast.nearest(y * (1.0 / s)) + z, -128.0), 127.0)
        tl.store(scale + row, s)
        tl.store(zero + row, z)
        tl.store(total + row, tl.sum(tl.where(inside, y - z, 0.0), 0))
    elif KIND == "float8":
        s = cast.positive(cast.largest(y) / 448.0)
        tl.store(scale + row, s)
        tl.store(out + dense, cast.to_float8(y * (1.0 / s)), inside)
    if KIND == "bfloat16":
        tl.store(out + dense, cast.to(y, tl.bfloat16), inside)
    elif KIND != "float8":
        tl.store(out + dense, y.to(tl.int8), inside)


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What a sublayer adds to the residual stream: change * gamma."""

    change_MK: Tensor
    gamma_K: Tensor


@overload
def layer_norm(
    x_FNK: Tensor,
    weight_K: Tensor,
    bias_K: Tensor,
    eps: float,
    kind: Literal["bfloat16"],
    update: Update | None = None,
) -> Tensor: ...


@overload
def layer_norm(
    x_FNK: Tensor, weight_K: Tensor, bias_K: Tensor, eps: float, kind: Kind, update: Update | None = None
) -> Operand: ...


def layer_norm(
    x_FNK: Tensor, weight_K: Tensor, bias_K: Tensor, eps: float, kind: Kind, update: Update | None = None
) -> Operand:
    """Layer norm of each token of [M, K] or [F, N, K] in float32, after `update` was added to `x` in place."""
    return _run(x_FNK, kind, "layer_norm", update, weight_K, bias_K, eps)


def gelu(x_MK: Tensor, kind: Kind) -> Operand:
    """Exact GELU of each value."""
    return _run(x_MK, kind, "gelu")


def quantize(x_MK: Tensor, kind: Kind) -> Operand:
    """The rows as they are."""
    return x_MK if kind == "bfloat16" else _run(x_MK, kind, "none")


def _run(
    x: Tensor,
    kind: Kind,
    step: str,
    update: Update | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
) -> Operand:
    frames_FNK = x if x.ndim == 3 else x.unsqueeze(0)
    frames, rows, width = frames_FNK.shape
    assert frames_FNK.stride(2) == 1, frames_FNK.stride()
    m = frames * rows
    out = x.new_empty(m, width, dtype=_DTYPES[kind])
    floats = {name: x.new_empty(m, dtype=torch.float32) for name in _EXTRAS[kind]}
    block = triton.next_power_of_2(width)
    _produce[(m,)](
        frames_FNK, update and update.change_MK, update and update.gamma_K, weight, bias, out,
        floats.get("scale_M"), floats.get("zero_M"), floats.get("total_M"), rows, frames_FNK.stride(0),
        frames_FNK.stride(1), width, eps, STEP=step, KIND=kind, WIDTH=block, num_warps=4 if block > 512 else 1,
    )  # fmt: skip
    return out if kind == "bfloat16" else Rows(values_MK=out, **floats)


_DTYPES = {"bfloat16": torch.bfloat16, "int8": torch.int8, "int8_asymmetric": torch.int8, "float8": FLOAT8}
_EXTRAS = {
    "bfloat16": (),
    "int8": ("scale_M",),
    "int8_asymmetric": ("scale_M", "zero_M", "total_M"),
    "float8": ("scale_M",),
}
