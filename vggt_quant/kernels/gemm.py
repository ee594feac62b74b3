"""Products of int8 or float8 rows with scales, zero points and bias in the epilogue.

    out = (A B^T - a_zero b_sum - a_total b_zero) a_scale b_scale + bias

The bracket is exact for int8, the rest is float32, the result bfloat16. A holds activations, B a Linear's weight as it
is stored; zero points are for int8 and may be left out. A persistent Triton kernel: each multiprocessor walks over
tiles, so that the next tile's loads overlap this one's epilogue. Operands come by the tensor memory accelerator where
the GPU has one and rows are multiples of 16 bytes, else by masked pointers.

GELU, LayerScale and the residual sum are not in the epilogue, because they measured slower there than in the producer
that reads the result anyway (docs/LOG.md, 2026-11-25).

Legend: M tokens, N outputs, K inputs.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from vggt_quant.kernels import cast
from vggt_quant.kernels.operands import Rows

BAND = 8
"""Rows of tiles that are walked together, so that neighbours share operands in the L2 cache."""


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
class Weight:
    """A weight [N, K] of int8 or float8 e4m3 and what its rows bring to the epilogue."""

    values_NK: Tensor
    scale_N: Tensor
    zero_N: Tensor | None = None
    """Zero points; the activations must bring `total_M`."""
    sum_N: Tensor | None = None
    """Sums of the rows as float32; needed if the activations have zero points."""
    bias_N: Tensor | None = None


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
    acc, row, column, out, a_scale, a_zero, a_total, b_scale, b_zero, b_sum, bias, M, N,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    m, n = row + tl.arange(0, HEIGHT), column + tl.arange(0, WIDTH)
    in_m, in_n = m < M, n < N
    # Zero points are taken out in integers, where the sums are exact.
    if a_zero is not None:
        zero, total = tl.load(a_zero + m, in_m, 0.0).to(tl.int32), tl.load(b_sum + n, in_n, 0.0).to(tl.int32)
        acc -= zero[:, None] * total[None, :]
    if b_zero is not None:
        zero, total = tl.load(b_zero + n, in_n, 0.0).to(tl.int32), tl.load(a_total + m, in_m, 0.0).to(tl.int32)
        acc -= total[:, None] * zero[None, :]
    y = acc.to(tl.float32)
    y *= tl.load(a_scale + m, in_m, 0.0)[:, None] * tl.load(b_scale + n, in_n, 0.0)[None, :]
    if bias is not None:
        y += tl.load(bias + n, in_n, 0.0).to(tl.float32)[None, :]
    place = m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(out + place, cast.to(y, tl.bfloat16), in_m[:, None] & in_n[None, :])


@triton.jit(do_not_specialize=["M"])
def _gemm(
    a, b, out, a_scale, a_zero, a_total, b_scale, b_zero, b_sum, bias, M, N, K,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, BAND: tl.constexpr, HALVES: tl.constexpr,
    TMA: tl.constexpr, ACC: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(M, TILE_M), tl.cdiv(N, TILE_N)
    band_tiles = BAND * tiles_n
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=TMA):
        first = tile // band_tiles * BAND
        height = min(tiles_m - first, BAND)
        row = (first + tile % band_tiles % height) * TILE_M
        column = tile % band_tiles // height * TILE_N
        acc = tl.zeros((TILE_M, TILE_N), ACC)
        for k in range(0, tl.cdiv(K, TILE_K)):
            x = _load(a, row, k * TILE_K, M, K, K, TILE_M, TILE_K, TMA)
            w = _load(b, column, k * TILE_K, N, K, K, TILE_N, TILE_K, TMA)
            acc = tl.dot(x, w.T, acc, out_dtype=ACC)
        if HALVES:
            left, right = tl.split(tl.permute(tl.reshape(acc, (TILE_M, 2, TILE_N // 2)), (0, 2, 1)))
            _finish(
                left, row, column, out, a_scale, a_zero, a_total, b_scale, b_zero, b_sum, bias, M, N,
                TILE_M, TILE_N // 2,
            )  # fmt: skip
            _finish(
                right, row, column + TILE_N // 2, out, a_scale, a_zero, a_total, b_scale, b_zero, b_sum, bias, M, N,
                TILE_M, TILE_N // 2,
            )  # fmt: skip
        else:
            _finish(acc, row, column, out, a_scale, a_zero, a_total, b_scale, b_zero, b_sum, bias, M, N, TILE_M, TILE_N)


def gemm(a: Rows, b: Weight, tile: Tile | None = None) -> Tensor:
    """Multiply and finish: bfloat16 [M, N]. Without a tile, `choose_tile` decides."""
    a_MK, b_NK = a.values_MK, b.values_NK
    (m, k), n, device = a_MK.shape, b_NK.shape[0], a_MK.device
    assert b_NK.shape[1] == k and a_MK.dtype == b_NK.dtype, (a_MK.shape, a_MK.dtype, b_NK.shape, b_NK.dtype)
    assert a_MK.is_contiguous() and b_NK.is_contiguous(), (a_MK.stride(), b_NK.stride())
    assert a.zero_M is None or b.sum_N is not None, "zero points of the activations need sums of the weight"
    assert b.zero_N is None or a.total_M is not None, "zero points of the weight need totals of the activations"
    programs = _multiprocessors(device)
    tile = tile or choose_tile(m, n, k, programs, zero_points=a.zero_M is not None)
    stages = min(tile.stages, 2) if has_little_memory(device) else tile.stages
    tma = has_tma(device, k * a_MK.element_size())
    out_MN = a_MK.new_empty(m, n, dtype=torch.bfloat16)
    _gemm[(min(triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n), programs),)](
        TensorDescriptor.from_tensor(a_MK, [tile.m, tile.k]) if tma else a_MK,
        TensorDescriptor.from_tensor(b_NK, [tile.n, tile.k]) if tma else b_NK,
        out_MN, a.scale_M, a.zero_M, None if b.zero_N is None else a.total_M, b.scale_N, b.zero_N,
        None if a.zero_M is None else b.sum_N, b.bias_N, m, n, k, TILE_M=tile.m, TILE_N=tile.n, TILE_K=tile.k,
        BAND=BAND, HALVES=tile.halves, TMA=tma, ACC=tl.int32 if a_MK.dtype == torch.int8 else tl.float32,
        PROGRAMS=programs, num_stages=stages, num_warps=tile.warps,
    )  # fmt: skip
    return out_MN


def has_tma(device: torch.device, row_bytes: int) -> bool:
    """Whether the GPU has a tensor memory accelerator, which takes rows of multiples of 16 bytes."""
    return device.type == "cuda" and row_bytes % 16 == 0 and torch.cuda.get_device_capability(device) >= (9, 0)


def has_little_memory(device: torch.device) -> bool:
    """Whether the stages of a tile and its epilogue do not fit into the 99 KB that a program has: GeForce Blackwell."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (12, 0)


def choose_tile(m: int, n: int, k: int, multiprocessors: int, *, zero_points: bool) -> Tile:
    """The tile for a shape: the largest that still gives every multiprocessor work.

    Measured on an H100 for the widths of VGGT-1B and 930 to 93,000 tokens (docs/LOG.md, 2026-11-25).
    """
    if k < 128:
        return Tile(m=64, n=64, k=64, stages=2, warps=4)
    if m <= 64:
        # Little arithmetic: small tiles, so that many multiprocessors read the weight, in long rows.
        return Tile(m=64, n=64, k=256 if k >= 256 else 128, stages=3, warps=4)
    # With zero points, the epilogue of the widest tile does not fit into the registers.
    if triton.cdiv(m, 128) * triton.cdiv(n, 256) >= 3 * multiprocessors and not zero_points:
        return Tile(m=128, n=256, k=128, stages=3, warps=8)
    if triton.cdiv(m, 128) * triton.cdiv(n, 128) >= multiprocessors:
        return Tile(m=128, n=128, k=128, stages=4, warps=8)
    return Tile(m=64, n=128, k=128, stages=4, warps=4)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
