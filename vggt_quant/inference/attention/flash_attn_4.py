"""flash-attn-4, a library for Hopper GPUs."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vggt_quant.inference.attention.base import Backend, heads


def attend(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """[M, 3D] to [M, D]."""
    out = _function()(*heads(qkv_M3D, sequences, num_heads))
    attended: Tensor = out[0] if isinstance(out, tuple) else out
    return attended.reshape(len(qkv_M3D), -1)


def unsupported(device: torch.device, head_width: int) -> str | None:
    """Why it cannot run there, or None."""
    if device.type != "cuda":
        return "it is for CUDA GPUs"
    if (major := torch.cuda.get_device_capability(device)[0]) != 9:
        return f"the GPU has compute capability {major}, not Hopper's 9"
    if head_width not in (64, 128):
        return f"heads are {head_width} wide, not 64 or 128"
    return None if _is_installed() else "it is not installed"


def _is_installed() -> bool:
    # The older flash-attn has the same top package, and without either the search for the inner one raises. That search
    # imports the older one, which fails where it was built for another PyTorch.
    try:
        return bool(importlib.util.find_spec("flash_attn") and importlib.util.find_spec("flash_attn.cute"))
    except ImportError:
        return False


@functools.cache
def _function() -> Callable[..., Any]:
    from flash_attn.cute import flash_attn_func

    found: Callable[..., Any] = flash_attn_func
    return found


BACKEND = Backend(title="flash-attn-4", attend=attend, unsupported=unsupported, distribution="flash-attn-4", rank=1)
