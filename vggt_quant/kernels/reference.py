"""The plain-PyTorch twins: what each operation means, on every device. Fast kernels are tested against these.

Layout of packed int4: two weights in a byte along the input dimension, column 2j in the low nibble and column 2j + 1
in the high one; each nibble holds the integer plus `offset` (8 for signed integers, 0 for unsigned ones). An odd width
leaves the last high nibble at zero.

Legend: N outputs, K inputs, G groups, B bytes in a row (= ceil(K / 2)).
"""

import torch
from torch import Tensor
from torch.nn import functional


def pack_int4(nibbles_NK: Tensor) -> Tensor:
    """uint8 [N, B] from integers 0..15 [N, K]."""
    even = nibbles_NK if nibbles_NK.shape[1] % 2 == 0 else functional.pad(nibbles_NK, (0, 1))
    low, high = even.to(torch.uint8).unflatten(1, (-1, 2)).unbind(-1)
    return low | (high << 4)


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
