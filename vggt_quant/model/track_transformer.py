"""The tracker's transformer: attention along time within a track, and between tracks within a frame.

Attention between all points would grow with their square. Instead a fixed set of learned virtual tracks reads the
points, talks among itself and is read by the points, after each attention along time.

In both blocks the residual stream starts at norm1(x), not x; the released weights were trained that way. Attention is
torch's `nn.MultiheadAttention`: its projections are read as weights, never called, so they are not to be replaced.

Shapes: B batch, N points, V virtual tracks, T = N + V, S frames, D width.

Source: CoTracker (Karaev et al., ECCV 2024, arXiv:2307.07635).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Mlp, random_parameter

MLP_RATIO = 4


class SelfAttentionBlock(nn.Module):
    """x = norm1(x); x + attn(x); x + mlp(norm2(x))."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the second of three dimensions."""
        x = self.norm1(x)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class CrossAttentionBlock(nn.Module):
    """x = norm1(x); x + attn(x, norm_context(context)); x + mlp(norm2(x))."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.norm_context = nn.LayerNorm(dim, eps=1e-5)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """What x reads from context; both are [batch, any, D]."""
        x, context = self.norm1(x), self.norm_context(context)
        x = x + self.cross_attn(x, context, context, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class TrackTransformer(nn.Module):
    """One token per point and frame to one update each.

    Args:
        dim_in: token width.
        dim_out: update width.
        hidden_size: width inside.
        depth: blocks along time, and as many between tracks.
        num_heads: attention heads.
        num_virtual_tracks: virtual tracks.
    """

    def __init__(
        self, *, dim_in: int, dim_out: int, hidden_size: int, depth: int, num_heads: int, num_virtual_tracks: int
    ) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(dim_in, eps=1e-5)
        self.input_transform = nn.Linear(dim_in, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size, eps=1e-5)
        self.flow_head = nn.Linear(hidden_size, dim_out)
        # Checkpoints spell it so.
        self.virual_tracks = random_parameter(1, num_virtual_tracks, 1, hidden_size)

        def build(block: type[nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(block(hidden_size, num_heads) for _ in range(depth))

        self.time_blocks = build(SelfAttentionBlock)
        self.space_virtual_blocks = build(SelfAttentionBlock)
        self.space_point2virtual_blocks = build(CrossAttentionBlock)
        self.space_virtual2point_blocks = build(CrossAttentionBlock)

    def forward(self, tokens_BNSD: Tensor) -> Tensor:
        """[B, N, S, dim_in] to [B, N, S, dim_out], in the dtype of the weights."""
        batch, num_points, num_frames, _ = tokens_BNSD.shape
        points = self.input_transform(self.input_norm(tokens_BNSD.to(self.input_norm.weight.dtype)))
        virtual = self.virual_tracks.expand(batch, -1, num_frames, -1)
        tokens_BTSD = torch.cat((points, virtual), dim=1)
        for i, time_block in enumerate(self.time_blocks):
            tokens_BTSD = time_block(tokens_BTSD.flatten(0, 1)).unflatten(0, tokens_BTSD.shape[:2])
            tokens_BTSD = self._exchange(i, tokens_BTSD, num_points)
        return self.flow_head(self.output_norm(tokens_BTSD[:, :num_points] + points))

    def _exchange(self, i: int, tokens_BTSD: Tensor, num_points: int) -> Tensor:
        """Points to virtual tracks, among those, and back, frame by frame."""
        tokens_FTD = tokens_BTSD.transpose(1, 2).flatten(0, 1)
        points, virtual = tokens_FTD[:, :num_points], tokens_FTD[:, num_points:]
        virtual = self.space_virtual2point_blocks[i](virtual, points)
        virtual = self.space_virtual_blocks[i](virtual)
        points = self.space_point2virtual_blocks[i](points, virtual)
        return torch.cat((points, virtual), dim=1).unflatten(0, (len(tokens_BTSD), -1)).transpose(1, 2)
