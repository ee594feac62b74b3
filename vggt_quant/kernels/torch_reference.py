"""The plain-PyTorch twins: they define each operation's result on every device. Fast kernels are tested against them.

Layout of packed int4: two weights in a byte along the input dimension, column 2j in the low nibble and column 2j + 1
in the high one; each nibble holds the integer plus `offset` (8 for signed integers, 0 for unsigned ones). An odd width
leaves the last high nibble at zero.

Legend: N outputs, K inputs, G groups, B bytes in a row (= ceil(K / 2)).
"""

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.kernels.operands import Kind, Operand, Rows

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
TINY = 1e-30
"""Scale of a row of zeros."""


def pack_int4(nibbles_NK: Tensor) -> Tensor:
    """uint8 [N, B] from integers 0..15 [N, K]."""
    even = nibbles_NK if nibbles_NK.shape[1] % 2 == 0 else functional.pad(nibbles_NK, (0, 1))
    low, high = even.to(torch.uint8).view(len(even), -1, 2).unbind(-1)
    packed: Tensor = low | (high << 4)
    return packed


def unpack_int4(packed_NB: Tensor, columns: int) -> Tensor:
    """uint8 [N, K] of values 0..15 from packed bytes."""
    return torch.stack([packed_NB & 15, packed_NB >> 4], dim=-1).flatten(1)[:, :columns]


def dequantize_int8(weight_NK: Tensor, scale_N1: Tensor, zero_point_N1: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(weight - zero_point) * scale in `dtype`; int8 differences are exact in bfloat16 (at most 8 bits)."""
    centred_NK = weight_NK.to(dtype)
    if zero_point_N1 is not None:
        centred_NK = centred_NK - zero_point_N1.to(dtype)
    return _scaled(centred_NK, scale_N1)


def dequantize_int4(
    packed_NB: Tensor,
    scale_NG: Tensor,
    zero_point_NG: Tensor | None,
    columns: int,
    group_size: int,
    dtype: torch.dtype,
) -> Tensor:
    """(nibble - zero_point) * scale in `dtype`, [N, columns]; without zero points the zero is 8."""
    nibbles_NK = unpack_int4(packed_NB, columns).to(dtype)
    scale_NK = scale_NG.repeat_interleave(group_size, dim=1)[:, :columns]
    if zero_point_NG is None:
        return _scaled(nibbles_NK - 8, scale_NK)
    zero_NK = zero_point_NG.to(dtype).repeat_interleave(group_size, dim=1)[:, :columns]
    return _scaled(nibbles_NK - zero_NK, scale_NK)


def _scaled(centred: Tensor, scale: Tensor) -> Tensor:
    """Multiply in the wider of both types: a bfloat16 scale does not fit into float16, so that pair takes float32."""
    return (centred * scale).to(centred.dtype)


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """Multiply by the transposed weight and add the bias, in the type of `x`."""
    return functional.linear(x, weight_NK, None if bias_N is None else bias_N.to(x.dtype))


def quantize_rows(x_MK: Tensor, kind: Kind) -> Operand:
    """Quantize activations for a product in 8-bit arithmetic, with a scale per row."""
    if kind == "bfloat16":
        return x_MK
    x_MK = x_MK.float()
    if kind == "float8":
        scale_M = (x_MK.abs().amax(1) / FLOAT8_MAX).clamp(min=TINY)
        values_MK = (x_MK * (1 / scale_M)[:, None]).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)
        return Rows(values_MK=values_MK, scale_M=scale_M)
    if kind == "int8":
        scale_M = (x_MK.abs().amax(1) / 127).clamp(min=TINY)
        return Rows(values_MK=(x_MK * (1 / scale_M)[:, None]).round().to(torch.int8), scale_M=scale_M)
    low_M, high_M = x_MK.amin(1).clamp(max=0), x_MK.amax(1).clamp(min=0)
    scale_M = ((high_M - low_M) / 255).clamp(min=TINY)
    zero_M = (-128 - low_M / scale_M).round()
    values_MK = ((x_MK * (1 / scale_M)[:, None]).round() + zero_M[:, None]).clamp(-128, 127)
    total_M = (values_MK - zero_M[:, None]).sum(1)
    return Rows(values_MK=values_MK.to(torch.int8), scale_M=scale_M, zero_M=zero_M, total_M=total_M)


def layer_norm(
    x_MK: Tensor,
    weight_K: Tensor,
    bias_K: Tensor,
    eps: float,
    kind: Kind,
    change_MK: Tensor | None = None,
    gamma_K: Tensor | None = None,
) -> Operand:
    """Layer norm of each row in float32 as an operand, after change * gamma was added to `x` in place."""
    y_MK = x_MK.float()
    if change_MK is not None:
        assert gamma_K is not None
        y_MK = y_MK + change_MK.float() * gamma_K.float()
        x_MK.copy_(y_MK)
    normed_MK = functional.layer_norm(y_MK, weight_K.shape, weight_K.float(), bias_K.float(), eps)
    return _operand(normed_MK, kind)


def gelu(x_MK: Tensor, kind: Kind) -> Operand:
    """Exact GELU of each value in float32, as an operand."""
    return _operand(functional.gelu(x_MK.float()), kind)


def _operand(x_MK: Tensor, kind: Kind) -> Operand:
    return x_MK.to(torch.bfloat16) if kind == "bfloat16" else quantize_rows(x_MK, kind)


def finish(
    x_FHWC: Tensor, bias_C: Tensor | None, *, relu: bool, first: Tensor | None = None, second: Tensor | None = None
) -> Tensor:
    """X + bias + first + second in float32, then perhaps ReLU."""
    y = sum((part.float() for part in (bias_C, first, second) if part is not None), start=x_FHWC.float())
    return y.relu() if relu else y


def multiply_rows(
    rows: Rows, weight_NK: Tensor, scale_N: Tensor, zero_N: Tensor | None = None, bias_N: Tensor | None = None
) -> Tensor:
    """float32 [M, N]: rows times the transposed weight (weight - zero) * scale, plus bias; int8 products are exact."""
    values_MK = rows.values_MK
    # float64 holds every sum. `_int_mm` takes not every shape on a GPU, and overflows on a CPU without VNNI.
    dtype = torch.float64 if values_MK.dtype == torch.int8 else torch.float32
    product_MN = values_MK.to(dtype) @ weight_NK.to(dtype).t()
    if rows.zero_M is not None:
        product_MN -= rows.zero_M[:, None] * weight_NK.sum(1, dtype=torch.int32).to(dtype)
    if zero_N is not None:
        total_M = values_MK.sum(1, dtype=torch.int32) if rows.total_M is None else rows.total_M
        product_MN -= total_M.to(dtype)[:, None] * zero_N.to(dtype)
    product_MN = product_MN.float() * (rows.scale_M[:, None] * scale_N.float())
    return product_MN if bias_N is None else product_MN + bias_N.float()


def int4_to_rows(
    packed_NB: Tensor, scale_NG: Tensor, zero_point_NG: Tensor | None, columns: int, group_size: int, kind: Kind
) -> tuple[Tensor, Tensor]:
    """Packed int4 as int8 or float8 [N, columns] with one float32 scale [N] per row, for 8-bit arithmetic."""
    scale_N = int4_row_scale(scale_NG, zero_point_NG, kind)
    ratio_NG = scale_NG.float() / scale_N[:, None]
    values_NK = dequantize_int4(packed_NB, ratio_NG, zero_point_NG, columns, group_size, torch.float32)
    return (values_NK.round().to(torch.int8) if kind == "int8" else values_NK.to(FLOAT8)), scale_N


def int4_row_scale(scale_NG: Tensor, zero_point_NG: Tensor | None, kind: Kind) -> Tensor:
    """float32 [N]: a scale under which no weight of a row leaves the range of int8 or float8."""
    farthest_NG = 8 if zero_point_NG is None else torch.maximum(zero_point_NG, 15 - zero_point_NG).float()
    largest_N = (scale_NG.float().abs() * farthest_NG).amax(1)
    return (largest_N / (127.0 if kind == "int8" else FLOAT8_MAX)).clamp(min=TINY)
