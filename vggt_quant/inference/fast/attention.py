"""The fastest attention that this machine has for a shape, chosen by visible rules.

Measured on an H100 with 16 heads of 64 (docs/LOG.md, 2026-11-25): flash-attn-4 is ahead of cuDNN and of PyTorch's flash
attention at every shape of VGGT, by 1.04 to 1.8; cuDNN is ahead of PyTorch's. Everywhere else PyTorch decides. Our own
float8 kernel, if asked for, takes the long sequences (`attention_tokens`); on short ones its packing may cost
more than it saves (2026-11-26). So does SageAttention (version 1, int8 in Triton), 2 to 4 times slower than others
there.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from vggt_quant.kernels import attention_fp8, attention_fp8_pack

Attend = Callable[[Tensor, int, int], Tensor]
"""Packed [query, key, value] rows [M, 3D], sequences that attend among themselves, heads -> [M, D]."""


def kernel(device: torch.device, head_width: int) -> str:
    """The name of the kernel that runs bfloat16 heads of this width."""
    if device.type != "cuda":
        return "torch sdpa"
    major, _ = torch.cuda.get_device_capability(device)
    if major == 9 and head_width in (64, 128) and _has_flash_attention_4():
        return "flash-attn-4"
    # cuDNN's heads are multiples of 8, up to 128 wide.
    return "cudnn" if major >= 9 and head_width % 8 == 0 and head_width <= 128 else "torch sdpa"


def attend(device: torch.device, head_width: int, attention: str = "bfloat16", tokens: int = 0) -> Attend:
    """The attention for heads of this width; another than bfloat16 takes the sequences of at least so many tokens."""
    name = kernel(device, head_width)
    by_name = {"flash-attn-4": _by_flash_attention_4, "cudnn": _by_cudnn, "torch sdpa": attend_by_torch}
    long = {"float8": _by_float8, "sageattention": _by_sageattention}
    if attention == "bfloat16":
        return by_name[name]
    return functools.partial(_by_length, tokens, long[attention], by_name[name])


def unsupported(device: torch.device, head_width: int, attention: str) -> str | None:
    """Why this attention cannot run there, or None."""
    if attention == "float8" and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return f"{torch.cuda.get_device_name(device)} is no Hopper GPU"
    if attention == "sageattention" and not importlib.util.find_spec("sageattention"):
        return "it is not installed"
    if attention != "bfloat16" and head_width != 64:
        return f"heads are {head_width} wide, not 64"
    return None


def attend_by_torch(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """Whatever PyTorch chooses."""
    q, k, v = _heads(qkv_M3D, sequences, num_heads)
    out_BHNE = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out_BHNE.transpose(1, 2).reshape(len(qkv_M3D), -1)


def _heads(qkv_M3D: Tensor, sequences: int, num_heads: int) -> tuple[Tensor, ...]:
    """Query, key, value [B, N, H, E]."""
    return qkv_M3D.view(sequences, -1, 3, num_heads, qkv_M3D.shape[1] // (3 * num_heads)).unbind(2)


def _by_cudnn(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return attend_by_torch(qkv_M3D, sequences, num_heads)


def _by_flash_attention_4(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    out = _flash_attention_4()(*_heads(qkv_M3D, sequences, num_heads))
    return (out[0] if isinstance(out, tuple) else out).reshape(len(qkv_M3D), -1)


def _by_length(tokens: int, long: Attend, short: Attend, qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    is_long = sequences == 1 and len(qkv_M3D) >= tokens
    return (long if is_long else short)(qkv_M3D, sequences, num_heads)


def _by_float8(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    return attention_fp8.attend(attention_fp8_pack.pack(qkv_M3D, num_heads))


def _by_sageattention(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    from sageattention import sageattn

    # It takes the mean out of the keys in place, which nobody reads after it.
    return sageattn(*_heads(qkv_M3D, sequences, num_heads), tensor_layout="NHD").reshape(len(qkv_M3D), -1)


def _has_flash_attention_4() -> bool:
    # The older flash-attn has the same top package, and without either the search for the inner one raises. That search
    # imports the older one, which fails where it was built for another PyTorch.
    try:
        return bool(importlib.util.find_spec("flash_attn") and importlib.util.find_spec("flash_attn.cute"))
    except ImportError:
        return False


@functools.cache
def _flash_attention_4() -> Callable:
    from flash_attn.cute import flash_attn_func

    return flash_attn_func
