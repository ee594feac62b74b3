"""The choice of an attention backend for a shape: the fastest that this machine has.

Measured on an H100 with 16 heads of 64 (docs/LOG.md, 2026-11-25): flash-attn-4 is 1.04 to 1.8 times faster than cuDNN
and PyTorch's flash attention at every shape of VGGT, and cuDNN is faster than PyTorch's. Elsewhere PyTorch chooses.
Backends in another arithmetic run only if the settings name them, and only for long sequences
(`RunSettings.attention_tokens`). On short ones the packing to float8 may cost more than it saves (2026-11-26), and
SageAttention is 2 to 4 times slower than the others.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from vggt_quant.inference import attention as backends
from vggt_quant.inference.attention.base import Attend, Backend
from vggt_quant.variants import RunSettings


def ranked() -> list[Backend]:
    """The backends that run where the settings name none, fastest first."""
    every = [backends.get(name) for name in backends.names()]
    return sorted((one for one in every if one.rank is not None), key=lambda one: one.rank or 0)


def usual(device: torch.device, head_width: int) -> Backend:
    """The backend for heads of this width where the settings name none: the first that runs there."""
    return next(one for one in ranked() if one.unsupported(device, head_width) is None)


def attend(device: torch.device, head_width: int, attention: str = "bfloat16", tokens: int = 0) -> Attend:
    """The attention for heads of this width; a named backend takes single sequences of at least that many tokens."""
    short = usual(device, head_width).attend
    return short if attention == "bfloat16" else functools.partial(_by_length, tokens, backends.get(attention), short)


def unsupported(device: torch.device, head_width: int, attention: str) -> str | None:
    """Why this attention cannot run there, or None."""
    return None if attention == "bfloat16" else backends.get(attention).unsupported(device, head_width)


def takes(sequences: int, tokens: int, least_tokens: int) -> bool:
    """Whether a named backend takes them: one long sequence."""
    return sequences == 1 and tokens >= least_tokens


def _by_length(least: int, named: Backend, short: Attend, qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    run = named.attend if takes(sequences, len(qkv_M3D), least) else short
    return run(qkv_M3D, sequences, num_heads)


def describe(device: torch.device, head_width: int, settings: RunSettings) -> str:
    """Which backend runs, for the records."""
    exact = usual(device, head_width).title
    if settings.attention == "bfloat16":
        return exact
    return f"{backends.get(settings.attention).title} from {settings.attention_tokens} tokens, else {exact}"
