"""The parts every transformer of VGGT is made of: attention, MLP, LayerScale, block, rotary embedding.

Linears are only ever called, never looked into, so each may be replaced by any module that maps the last dimension;
what decides a dtype is taken from normalisations and convolutions, which stay as they are.

Position tables depend on shapes alone. They are built once on the CPU, moved and kept in a `TableCache` outside the
state dict, so a model built on the meta device and filled with `load_state_dict(assign=True)` is whole.

Shapes: B batch, N tokens, D width, H heads, E head width, P tokens of a frame.

Sources: ViT (Dosovitskiy et al., arXiv:2010.11929); LayerScale (Touvron et al., arXiv:2103.17239); RoPE (Su et al.,
arXiv:2104.09864), here in two dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TableCache:
    """Tensors that depend on shapes only, one per (key, device, dtype).

    The first use of a key builds its tensor, and copies it to the device; every later use is a dictionary look-up, so
    a warmed-up forward neither allocates nor synchronises for it.
    """

    def __init__(self) -> None:
        self._tables: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable, like: Tensor, build: Callable[[], Tensor]) -> Tensor:
        """The table of `key` on the device and in the dtype of `like`; `build` makes it on the CPU."""
        full_key = (key, like.device, like.dtype)
        if full_key not in self._tables:
            # A table made inside inference_mode could not be used by a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._tables[full_key] = build().to(device=like.device, dtype=like.dtype)
        return self._tables[full_key]


def random_parameter(*shape: int, std: float = 1.0) -> nn.Parameter:
    """Normal values to train from; without values on the meta device.

    Drawing there would import PyTorch's compiler, and Triton with it: 0.1 GB of memory and a second.
    """
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else std * torch.randn(shape))


def grid_positions(height: int, width: int) -> Tensor:
    """(y, x) of each cell of a grid, row-major, as integers [height * width, 2]."""
    rows, columns = torch.arange(height, device="cpu"), torch.arange(width, device="cpu")
    return torch.cartesian_prod(rows, columns).view(-1, 2)


def rotary_table(positions_P2: Tensor, head_dim: int, base: float) -> Tensor:
    """Cosines and sines of the two-dimensional rotary embedding.

    The first half of a head turns with y, the second with x. In a half of size d, dimension i and dimension i + d/2
    form the pair that turns by position * base^(-2i/d).

    Args:
        positions_P2: (y, x) of each token.
        head_dim: width of a head, a multiple of 4.
        base: of the frequencies.

    Returns:
        [2, P, head_dim] float32: cosines, then sines.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=positions_P2.device) / half
    angles_P2F = positions_P2.float().unsqueeze(-1) * base**-exponents
    angles_PE = torch.cat((angles_P2F, angles_P2F), dim=-1).flatten(1)
    return torch.stack((angles_PE.cos(), angles_PE.sin()))


def apply_rotary(x_BHNE: Tensor, table_2PE: Tensor) -> Tensor:
    """Turn queries or keys; N is a multiple of the table's P, whose positions repeat frame after frame."""
    cos_PE, sin_PE = table_2PE
    x = x_BHNE.unflatten(2, (-1, table_2PE.shape[1]))
    y1, y2, x1, x2 = x.chunk(4, dim=-1)
    turned = torch.cat((-y2, y1, -x2, x1), dim=-1)
    return (x * cos_PE + turned * sin_PE).flatten(2, 3)


def attend(q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor) -> Tensor:
    """Softmax(q k / sqrt(E)) v by PyTorch's kernel; long bfloat16 sequences on a CPU by `attend_in_pieces`."""
    is_slow = q_BHNE.dtype == torch.bfloat16 and q_BHNE.device.type == "cpu" and q_BHNE.shape[2] >= LONG_SEQUENCE
    if is_slow and not torch.is_grad_enabled():
        return attend_in_pieces(q_BHNE, k_BHNE, v_BHNE)
    return F.scaled_dot_product_attention(q_BHNE, k_BHNE, v_BHNE)


LONG_SEQUENCE = 512
PIECE = 512
"""Queries whose scores with all keys are in memory at once."""


def attend_in_pieces(q_BHNE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor) -> Tensor:
    """The same by plain matrix products, a head and a piece of its queries at a time.

    PyTorch's CPU kernel multiplies bfloat16 no faster than float32; these products are the processor's own in bfloat16,
    and take half of its time from 900 tokens on (docs/LOG.md, 2026-11-25). Probabilities are rounded to bfloat16 before
    they meet the values, as in the usual GPU kernels: 47 dB where that kernel keeps 53.
    """
    out_BHNE = torch.empty_like(q_BHNE)
    q_BHNE = q_BHNE * q_BHNE.shape[-1] ** -0.5
    for head in itertools.product(*map(range, q_BHNE.shape[:2])):
        keys_EN, values_NE = k_BHNE[head].t(), v_BHNE[head]
        for out, queries in zip(out_BHNE[head].split(PIECE), q_BHNE[head].split(PIECE), strict=True):
            torch.matmul((queries @ keys_EN).float().softmax(-1).to(out.dtype), values_NE, out=out)
    return out_BHNE


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension from dim to out_dim."""
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention; with `qk_norm`, queries and keys are normalised per head before they turn."""

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        assert dim % num_heads == 0, (dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // num_heads, eps=1e-5) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // num_heads, eps=1e-5) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor, rotary_2PE: Tensor | None = None) -> Tensor:
        """Attend over N; without a table no position is encoded."""
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary_2PE is not None:
            q, k = apply_rotary(q, rotary_2PE), apply_rotary(k, rotary_2PE)
        # Under autocast the norms give float32 while v stays in the low precision.
        out_BHNE = attend(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(out_BHNE.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, init_values: float, *, norm_eps: float, qk_norm: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim, init_values)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)
        self.ls2 = LayerScale(dim, init_values)

    def forward(self, x_BND: Tensor, rotary_2PE: Tensor | None = None) -> Tensor:
        """One block over [B, N, D]."""
        x_BND = x_BND + self.ls1(self.attn(self.norm1(x_BND), rotary_2PE))
        return x_BND + self.ls2(self.mlp(self.norm2(x_BND)))
