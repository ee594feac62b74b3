"""The interface of an attention backend; `_choice` says which one runs for a shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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


def heads(qkv_M3D: Tensor, sequences: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key, value [B, N, H, E]."""
    q, k, v = qkv_M3D.view(sequences, -1, 3, num_heads, qkv_M3D.shape[1] // (3 * num_heads)).unbind(2)
    return q, k, v
