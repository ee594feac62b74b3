"""One matrix product with everything that may follow it: out = epilogue(A B^T), for bfloat16, int8 and float8 operands.

    y = (A B^T - a_zero b_sum) a_scale b_scale + bias      scales for 8-bit operands, zero points for int8
    y = gelu(y)                                            exact, by erf
    y = y gamma + residual
    out = y in bfloat16, or y / out_scale in float8 e4m3

Each step happens only if its tensor (or flag) is given; all in float32. B is a Linear's weight as it is stored. A
persistent Triton kernel: each multiprocessor walks over tiles, so that the epilogue of one tile overlaps the loads of
the next. Operands come by the tensor memory accelerator where the rows are multiples of 16 bytes and the GPU has one,
else by masked pointers.

Legend: M tokens, N outputs, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from vggt_quant.kernels import cast


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """How the kernel cuts the work."""

    m: int
    n: int
    k: int
    stages: int
    warps: int
    halves: bool = False
    """Whether the epilogue handles a tile in two halves, to save registers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epilogue:
    """What follows the product; every field may be left out."""

    a_scale_M: Tensor | None = None
    a_zero_M: Tensor | None = None
    b_scale_N: Tensor | None = None
    b_sum_N: Tensor | None = None
    bias_N: Tensor | None = None
    gamma_N: Tensor | None = None
    residual_MN: Tensor | None = None
    out_scale_M: Tensor | None = None
    gelu: bool = False


@triton.jit
def _load(source, row, column, rows, columns, stride, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr):
    if TMA:
        block = source.load([row, column])
    else:
        r, c = row + tl.arange(0, HEIGHT)[:, None], column + tl.arange(0, WIDTH)[None, :]
        block = tl.load(source + r.to(tl.int64) * stride + c, (r < rows) & (c < columns), 0.0)
    return block


@triton.jit
def _finish(
    acc, row, column, out, a_scale, a_zero, b_scale, b_sum, bias, gamma, residual, out_scale, M, N, out_stride,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    m, n = row + tl.arange(0, HEIGHT), column + tl.arange(0, WIDTH)
    in_m, in_n = m < M, n < N
    y = acc.to(tl.float32)
    if a_zero is not None:
        zero, total = tl.load(a_zero + m, in_m, 0.0), tl.load(b_sum + n, in_n, 0.0)
        y -= zero[:, None] * total[None, :]
    if a_scale is not None:
        y *= tl.load(a_scale + m, in_m, 0.0)[:, None]
    if b_scale is not None:
        y *= tl.load(b_scale + n, in_n, 0.0).to(tl.float32)[None, :]
    if bias is not None:
        y += tl.load(bias + n, in_n, 0.0).to(tl.float32)[None, :]
    if GELU:
        y = cast.gelu(y)
    if gamma is not None:
        y *= tl.load(gamma + n, in_n, 0.0).to(tl.float32)[None, :]
    place = m.to(tl.int64)[:, None] * out_stride + n[None, :]
    inside = in_m[:, None] & in_n[None, :]
    if residual is not None:
        y += tl.load(residual + place, inside, 0.0).to(tl.float32)
    if out_scale is not None:
        y /= tl.load(out_scale + m, in_m, 1.0)[:, None]
        tl.store(out + place, cast.to_float8(y), inside)
    else:
        tl.store(out + place, y.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["M"])
def _gemm(
    a, b, out, a_scale, a_zero, b_scale, b_sum, bias, gamma, residual, out_scale, M, N, K, a_stride, b_stride,
    out_stride, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, BAND: tl.constexpr,
    HALVES: tl.constexpr, GELU: tl.constexpr, TMA: tl.constexpr, ACC: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(M, TILE_M), tl.cdiv(N, TILE_N)
    # Tiles go down a band of rows before the next column, so that neighbours share operands in the L2 cache.
    band_tiles = BAND * tiles_n
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=TMA):
        first = tile // band_tiles * BAND
        height = min(tiles_m - first, BAND)
        row = (first + tile % band_tiles % height) * TILE_M
        column = tile % band_tiles // height * TILE_N
        acc = tl.zeros((TILE_M, TILE_N), ACC)
        for k in range(0, tl.cdiv(K, TILE_K)):
            x = _load(a, row, k * TILE_K, M, K, a_stride, TILE_M, TILE_K, TMA)
            w = _load(b, column, k * TILE_K, N, K, b_stride, TILE_N, TILE_K, TMA)
            if cast.INTERPRETED and tl.float32 == ACC:
                x, w = x.to(tl.float32), w.to(tl.float32)
            acc = tl.dot(x, w.T, acc, out_dtype=ACC)
        if HALVES:
            left, right = tl.split(tl.permute(tl.reshape(acc, (TILE_M, 2, TILE_N // 2)), (0, 2, 1)))
            _finish(
                left, row, column, out, a_scale, a_zero, b_scale, b_sum, bias, gamma, residual, out_scale, M, N,
                out_stride, TILE_M, TILE_N // 2, GELU,
            )  # fmt: skip
            _finish(
                right, row, column + TILE_N // 2, out, a_scale, a_zero, b_scale, b_sum, bias, gamma, residual,
                out_scale, M, N, out_stride, TILE_M, TILE_N // 2, GELU,
            )  # fmt: skip
        else:
            _finish(
                acc, row, column, out, a_scale, a_zero, b_scale, b_sum, bias, gamma, residual, out_scale, M, N,
                out_stride, TILE_M, TILE_N, GELU,
            )  # fmt: skip


def gemm(a_MK: Tensor, b_NK: Tensor, epilogue: Epilogue, tile: Tile, out_MN: Tensor | None = None) -> Tensor:
    """Multiply and finish.

    Args:
        a_MK: activations; bfloat16, int8 or float8 e4m3, inner dimension contiguous.
        b_NK: weights, of the same type.
        epilogue: what follows.
        tile: how to cut the work.
        out_MN: where to write; may be the residual itself.

    Returns:
        [M, N]: float8 if the epilogue has an `out_scale_M`, else bfloat16.
    """
    (m, k), n = a_MK.shape, b_NK.shape[0]
    assert b_NK.shape[1] == k and a_MK.dtype == b_NK.dtype, (a_MK.shape, a_MK.dtype, b_NK.shape, b_NK.dtype)
    if out_MN is None:
        out_MN = a_MK.new_empty(m, n, dtype=torch.bfloat16 if epilogue.out_scale_M is None else cast.FLOAT8)
    residual = epilogue.residual_MN
    assert residual is None or residual.stride() == out_MN.stride(), "the residual is laid out as the result"
    tma = has_tma(a_MK) and has_tma(b_NK)
    a = TensorDescriptor.from_tensor(a_MK, [tile.m, tile.k]) if tma else a_MK
    b = TensorDescriptor.from_tensor(b_NK, [tile.n, tile.k]) if tma else b_NK
    tiles = triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n)
    programs = _multiprocessors(a_MK.device)
    e = epilogue
    _gemm[(min(tiles, programs),)](
        a, b, out_MN, e.a_scale_M, e.a_zero_M, e.b_scale_N, e.b_sum_N, e.bias_N, e.gamma_N, residual, e.out_scale_M,
        m, n, k, a_MK.stride(0), b_NK.stride(0), out_MN.stride(0), TILE_M=tile.m, TILE_N=tile.n, TILE_K=tile.k,
        BAND=8, HALVES=tile.halves, GELU=e.gelu, TMA=tma,
        ACC=tl.int32 if a_MK.dtype == torch.int8 else tl.float32, PROGRAMS=programs,
        num_stages=tile.stages, num_warps=tile.warps,
    )  # fmt: skip
    return out_MN


def has_tma(matrix: Tensor) -> bool:
    """Whether the tensor memory accelerator can read it: Hopper or newer, rows that start at multiples of 16 bytes."""
    aligned = matrix.stride(0) * matrix.element_size() % 16 == 0 and matrix.data_ptr() % 16 == 0
    return aligned and matrix.is_cuda and torch.cuda.get_device_capability(matrix.device) >= (9, 0)


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
