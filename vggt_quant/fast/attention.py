"""The fastest exact attention that this machine has, chosen by a visible rule.

Measured on an H100 with 16 heads of 64 (docs/LOG.md, 2026-11-25): flash-attn-4 is ahead of cuDNN and of PyTorch's flash
attention at every shape of VGGT, by 1.04 to 1.8; cuDNN is ahead of PyTorch's. Everywhere else PyTorch decides.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query, key, value [B, N, H, E] to [B, N, H, E]."""


def kernel(device: torch.device, head_width: int, attention: str = "bfloat16") -> str:
    """The name of the kernel that `attend` runs for heads of this width."""
    if device.type != "cuda":
        return "torch sdpa"
    major, _ = torch.cuda.get_device_capability(device)
    if major == 9 and head_width in (64, 128) and _has_flash_attention_4():
        return "flash-attn-4"
    return "cudnn" if major >= 9 else "torch sdpa"


def _has_flash_attention_4() -> bool:
    # The older flash-attn has the same top package, and without either the search for the inner one raises.
    return bool(importlib.util.find_spec("flash_attn") and importlib.util.find_spec("flash_attn.cute"))


def attend(device: torch.device, head_width: int, attention: str = "bfloat16") -> Attend:
    """The attention that `kernel` names."""
    name = kernel(device, head_width, attention)
    if name == "flash-attn-4":
        return _flash_attention_4()
    return _attend_by_cudnn if name == "cudnn" else attend_by_torch


def attend_by_torch(q_BNHE: Tensor, k_BNHE: Tensor, v_BNHE: Tensor) -> Tensor:
    """Whatever PyTorch chooses."""
    q, k, v = (x.transpose(1, 2) for x in (q_BNHE, k_BNHE, v_BNHE))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _attend_by_cudnn(q_BNHE: Tensor, k_BNHE: Tensor, v_BNHE: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return attend_by_torch(q_BNHE, k_BNHE, v_BNHE)


@functools.cache
def _flash_attention_4() -> Attend:
    from flash_attn.cute import flash_attn_func

    def run(q_BNHE: Tensor, k_BNHE: Tensor, v_BNHE: Tensor) -> Tensor:
        out = flash_attn_func(q_BNHE, k_BNHE, v_BNHE)
        return out[0] if isinstance(out, tuple) else out

    return run
