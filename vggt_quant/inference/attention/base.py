"""The interface of an attention backend, and the choice of one for a shape: the fastest that this machine has.

Measured on an H100 with 16 heads of 64 (docs/LOG.md, 2026-11-25): flash-attn-4 is 1.04 to 1.8 times faster than cuDNN
and PyTorch's flash attention at every shape of VGGT, and cuDNN is faster than PyTorch's. Elsewhere PyTorch chooses.
Backends in another arithmetic run only if the settings name them, and only for long sequences
(`RunSettings.attention_tokens`). On short ones the packing to float8 may cost more than it saves (2026-11-26), and
SageAttention is 2 to 4 times slower than the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vggt_quant.inference import attention as backends
from vggt_quant.variants import RunSettings

Attend = Callable[[Tensor, int, int], Tensor]
"""Packed [query, key, value] rows [M, 3D], sequences that attend among themselves, heads -> [M, D]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """An attention for bfloat16 tokens; a file's `BACKEND`. `rank` and `distribution` are read without running it."""

    title: str
    """Its name in the records of a result."""
    attend: Attend
    unsupported: Callable[[torch.device, int], str | None]
    """(device, width of a head) -> why it cannot run there, or None."""
    scores: str = "bfloat16"
    """The arithmetic of queries times keys."""
    values: str = "bfloat16"
    """The arithmetic of probabilities times values."""
    rank: int | None = None
    """Place among those that run where the settings name none, fastest first; None: only where they name it."""
    distribution: str | None = None
    """The installed library that it calls, whose version results record; None: PyTorch or our own kernels."""
    least_db: float = 40
    """Signal-to-noise ratio that it keeps on normal data; the conformance tests hold it to that."""


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


def heads(qkv_M3D: Tensor, sequences: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key, value [B, N, H, E]."""
    q, k, v = qkv_M3D.view(sequences, -1, 3, num_heads, qkv_M3D.shape[1] // (3 * num_heads)).unbind(2)
    return q, k, v
