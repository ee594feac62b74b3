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
    if major == 9 and head_width in (64, 128) and importlib.util.find_spec("flash_attn.cute"):
        return "flash-attn-4"
    return "cudnn" if major >= 9 else "torch sdpa"


def attend(device: torch.device, head_width: int, attention: str = "bfloat16") -> Attend:
    """The attention that `kernel` names."""
    name = kernel(device, head_width, attention)
    if name == "flash-attn-4":
        return _flash_attention_4()
    return functools.partial(_sdpa, backends=[SDPBackend.CUDNN_ATTENTION] if name == "cudnn" else None)


def _sdpa(q_BNHE: Tensor, k_BNHE: Tensor, v_BNHE: Tensor, *, backends: list[SDPBackend] | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BNHE, k_BNHE, v_BNHE))
    if backends is None:
        return scaled_dot_product_attention(q, k, v).transpose(1, 2)
    with sdpa_kernel(backends):
        return scaled_dot_product_attention(q, k, v).transpose(1, 2)


@functools.cache
def _flash_attention_4() -> Attend:
    from flash_attn.cute import flash_attn_func

    def run(q_BNHE: Tensor, k_BNHE: Tensor, v_BNHE: Tensor) -> Tensor:
        out = flash_attn_func(q_BNHE, k_BNHE, v_BNHE)
        return out[0] if isinstance(out, tuple) else out

    return run
