"""Products of int8 rows with int8 weights on the CPU, in plain PyTorch: no compiler, no copy of the weights.

The integer product is `torch._int_mm`, oneDNN's kernel on VNNI or AMX instructions. It reads the weights as they are
stored, about as fast as a packed copy of them. Quantization and scaling around it would take as long in plain PyTorch.
So they run in few passes, in pieces that stay in the cache, and in place: the result overwrites the integers.

Without VNNI, oneDNN adds pairs of products in 16 bits, which overflow silently (seen: 127 * -128 under AVX2 and AVX512
alone). So `is_exact` tests it once. If it fails, the product is computed in float32: exact, and as slow as float32.

Legend: M tokens, K inputs, N outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from vggt_quant.kernels.operands import Kind, Rows
from vggt_quant.kernels.torch_reference import TINY

PIECE = 262144
"""Values of a piece per thread, 1 MiB of float32: smaller pieces fit a smaller cache, but each costs several starts of
all threads, which take long when the processor is busy."""
EXACT_COLUMNS = 1024
"""Columns over which float32 sums products of int8 without rounding: 128 * 128 * 1024 = 2^24."""


@functools.cache
def is_exact() -> bool:
    """Whether `torch._int_mm` survives the largest products on this CPU, for one row and for many."""
    weight_NK = torch.full((64, 64), -128, dtype=torch.int8)
    rows = (torch.full((count, 64), 127, dtype=torch.int8) for count in (1, 64))
    return all(bool((torch._int_mm(values_MK, weight_NK.t()) == 127 * -128 * 64).all()) for values_MK in rows)


def kernel() -> str:
    """What multiplies on this CPU, with the instructions that it has."""
    if not is_exact():
        return "torch float32, because torch._int_mm overflows on this CPU"
    has = torch.cpu.get_capabilities()
    names = {"amx_int8": "AMX", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI"}
    return f"torch._int_mm ({next((name for key, name in names.items() if has.get(key)), has['architecture'])})"


@torch.no_grad()
def quantize_rows(x_MK: Tensor, kind: Kind) -> Rows:
    """`reference.quantize_rows` for "int8" and "int8_asymmetric", bit for bit."""
    is_copy = x_MK.dtype != torch.float32
    x_MK = x_MK.float()
    rows, columns = x_MK.shape
    scale_M, zero_M = _range(x_MK, kind)
    inverse_M = 1 / scale_M
    total_M = None if zero_M is None else torch.empty(rows)
    values_MK = torch.empty(rows, columns, dtype=torch.int8)
    buffer_PK = torch.empty(0 if is_copy else min(rows, _piece_rows(columns)), columns)
    for piece in _pieces(rows, columns):
        x_PK = x_MK[piece]
        y_PK = torch.mul(x_PK, inverse_M[piece, None], out=x_PK if is_copy else buffer_PK[: len(x_PK)]).round_()
        if zero_M is not None:
            assert total_M is not None
            y_PK.add_(zero_M[piece, None]).clamp_(-128, 127)
            torch.sum(y_PK, 1, out=total_M[piece]).sub_(zero_M[piece], alpha=columns)
        values_MK[piece] = y_PK
    return Rows(values_MK=values_MK, scale_M=scale_M, zero_M=zero_M, total_M=total_M)


def _range(x_MK: Tensor, kind: Kind) -> tuple[Tensor, Tensor | None]:
    """Scale of each row, and its zero point for an asymmetric operand."""
    # Two reductions that vectorize; `aminmax` and the infinity norm take twenty times as long.
    low_M, high_M = x_MK.amin(1), x_MK.amax(1)
    if kind == "int8":
        return torch.maximum(high_M, low_M.neg_()).div_(127).clamp_(min=TINY), None
    low_M, high_M = low_M.clamp_(max=0), high_M.clamp_(min=0)
    scale_M = (high_M - low_M).div_(255).clamp_(min=TINY)
    return scale_M, (-128 - low_M / scale_M).round_()


@torch.no_grad()
def multiply_rows(
    rows: Rows,
    weight_NK: Tensor,
    scale_N: Tensor,
    *,
    zero_N: Tensor | None = None,
    sum_N: Tensor | None = None,
    bias_N: Tensor | None = None,
) -> Tensor:
    """`reference.multiply_rows` for int8, float32 [M, N]; arguments as those of `products.multiply`."""
    product_MN = integer_product(rows.values_MK, weight_NK)
    out_MN = product_MN.view(torch.float32)
    bias_N = None if bias_N is None else bias_N.float()
    for piece in _pieces(*product_MN.shape):
        out_PN = out_MN[piece]
        out_PN.copy_(product_MN[piece])
        if rows.zero_M is not None:
            assert sum_N is not None
            out_PN.addcmul_(rows.zero_M[piece, None], sum_N, value=-1)
        if zero_N is not None:
            assert rows.total_M is not None
            out_PN.addcmul_(rows.total_M[piece, None], zero_N, value=-1)
        out_PN.mul_(scale_N)
        if bias_N is None:
            out_PN.mul_(rows.scale_M[piece, None])
        else:
            torch.addcmul(bias_N, out_PN, rows.scale_M[piece, None], out=out_PN)
    return out_MN


def integer_product(values_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """int32 [M, N], without rounding: int8 rows times the transposed int8 weight."""
    return torch._int_mm(values_MK, weight_NK.t()) if is_exact() else float32_product(values_MK, weight_NK)


def float32_product(values_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """The same by float32, over so few columns at a time that every sum fits into its 24 bits."""
    product_MN = torch.zeros(len(values_MK), len(weight_NK), dtype=torch.int32)
    pairs = zip(torch.split(values_MK, EXACT_COLUMNS, 1), torch.split(weight_NK, EXACT_COLUMNS, 1), strict=True)
    for values, weight in pairs:
        product_MN += (values.float() @ weight.float().t()).to(torch.int32)
    return product_MN


def _pieces(rows: int, columns: int) -> Iterator[slice]:
    """Rows in groups that stay in the cache."""
    step = _piece_rows(columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _piece_rows(columns: int) -> int:
    return max(1, PIECE * torch.get_num_threads() // columns)
