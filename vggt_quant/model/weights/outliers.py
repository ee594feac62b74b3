"""Outlier twins: the same function with heavy-tailed activations, as large transformers have them.

Idea: in some channels of a block's LayerNorm, weight and bias are multiplied by a power of two. The columns of the next
Linear that read those channels are divided by it. In float32 and bfloat16 both are exact, so the twin's outputs equal
the original's bit for bit (float16 has too few exponents for the smallest weights). But a few channels of its
activations are now many times larger than the rest, and a few columns of its weights many times smaller. Such outliers
harm per-token INT8 activations and grouped INT4 weights in VGGT-1B. SmoothQuant, AWQ and rotations are made to handle
them.

Source: Dettmers et al., LLM.int8() (arXiv:2208.07339), and Xiao et al., SmoothQuant (arXiv:2211.10438), for the
phenomenon; the construction is SmoothQuant's own identity, run backwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

FOLLOWERS = {"norm1": "attn.qkv", "norm2": "mlp.fc1"}
"""The LayerNorms of a block, and the Linear that alone reads each."""
SHARE = 1 / 64
"""Of the channels, at least one of each LayerNorm."""
EXPONENTS = (4, 6)
"""A channel grows by two to the power of one of these, or of a whole number between."""
SEED = 0


def inject_outliers(state: dict[str, Tensor], *, seed: int = SEED) -> dict[str, Tensor]:
    """A state dict of the same function, with outliers in every block's LayerNorms.

    Args:
        state: of a VGGT; it is left as it is. Tensors without outliers are shared with the result.
        seed: chooses channels and factors.

    Raises:
        ValueError: there is no block in it.
    """
    generator, twin = torch.Generator().manual_seed(seed), dict(state)
    for name in state:
        block, _, norm = name.removesuffix(".weight").rpartition(".")
        follower = f"{block}.{FOLLOWERS.get(norm)}.weight"
        if norm in FOLLOWERS and name.endswith(".weight") and follower in state:
            factors = _factors(len(state[name]), generator).to(state[name].device)
            for part in ("weight", "bias"):
                key = f"{block}.{norm}.{part}"
                twin[key] = (state[key].float() * factors).to(state[key].dtype)
            twin[follower] = (state[follower].float() / factors).to(state[follower].dtype)
    if all(twin[name] is state[name] for name in state):
        raise ValueError("These weights have no transformer block (norm1 before attn.qkv), so no outlier has a place.")
    return twin


def _factors(channels: int, generator: torch.Generator) -> Tensor:
    """[channels] ones, but for a few powers of two."""
    count = max(1, round(channels * SHARE))
    chosen = torch.randperm(channels, generator=generator)[:count]
    exponents = torch.randint(EXPONENTS[0], EXPONENTS[1] + 1, (count,), generator=generator)
    factors = torch.ones(channels)
    factors[chosen] = 2.0**exponents
    return factors
