"""8-bit rows and their products with 8-bit weights. This module chooses the kernel by device and shape."""

from __future__ import annotations

import torch
from torch import Tensor

from vggt_quant.kernels import cpu_int8, torch_reference
from vggt_quant.kernels.operands import Kind, Operand, Rows


def has_float8(device: torch.device) -> bool:
    """Whether the GPU multiplies float8: Ada, Hopper and newer."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


FEW_ROWS = 128
"""Below that, cuBLAS has no float8 kernel for some shapes (seen: 5 rows, 8192 to 2048)."""


def _takes_cublas(rows: int, weight_NK: Tensor) -> bool:
    """Whether cuBLAS multiplies float8 of these shapes; the kernel in `gemm` takes any."""
    return rows >= FEW_ROWS and not any(side % 16 for side in weight_NK.shape)


def quantize_rows(x_MK: Tensor, kind: Kind) -> Operand:
    """An operand of type `kind`, by the kernel if there is one, else by its twin."""
    if kind == "bfloat16":
        return x_MK
    if x_MK.device.type == "cpu" and kind != "float8":
        return cpu_int8.quantize_rows(x_MK, kind)
    if not x_MK.is_cuda:
        return torch_reference.quantize_rows(x_MK, kind)
    from vggt_quant.kernels import rows

    return rows.quantize(x_MK.contiguous(), kind)


def multiply(
    rows: Rows,
    weight_NK: Tensor,
    scale_N: Tensor,
    *,
    zero_N: Tensor | None = None,
    sum_N: Tensor | None = None,
    bias_N: Tensor | None = None,
) -> Tensor:
    """Rows times the transposed weight (weight - zero) * scale, plus bias: bfloat16 [M, N] on a GPU, else float32.

    Args:
        rows: int8 or float8 activations.
        weight_NK: of the same type.
        scale_N: float32.
        zero_N: zero points of the weight; needs `rows.total_M`.
        sum_N: float32 sums of the weight's rows; needed if the rows have zero points.
        bias_N: any type.
    """
    if weight_NK.device.type == "cpu" and weight_NK.dtype == torch.int8:
        return cpu_int8.multiply_rows(rows, weight_NK, scale_N, zero_N=zero_N, sum_N=sum_N, bias_N=bias_N)
    if not weight_NK.is_cuda:
        return torch_reference.multiply_rows(rows, weight_NK, scale_N, zero_N, bias_N)
    if weight_NK.dtype != torch.int8 and _takes_cublas(len(rows.scale_M), weight_NK):
        bias = None if bias_N is None else bias_N.to(torch.bfloat16)
        return torch._scaled_mm(
            rows.values_MK, weight_NK.t(), rows.scale_M[:, None], scale_N[None], bias=bias,
            out_dtype=torch.bfloat16, use_fast_accum=True,
        )  # fmt: skip
    from vggt_quant.kernels.gemm import Weight, gemm

    return gemm(rows, Weight(values_NK=weight_NK, scale_N=scale_N, zero_N=zero_N, sum_N=sum_N, bias_N=bias_N))
