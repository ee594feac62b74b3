"""VGGT's backbone: patch tokens exchange information within each frame and across all frames, in turn.

A frame is [camera token, register tokens, patches row-major]. The first frame has other special tokens than the rest,
so that the model can tell whose coordinates are the world's. A layer is one frame block, over [B * S, P], and one
global block, over [B, S * P]. Its output concatenates both results, width 2D.

Only layers that a head reads are kept: 24 of them at 2D floats a token would be most of the memory.

Shapes: B batch, S frames, P tokens of a frame (1 + registers + N patches), D width, H W image.

Source: VGGT (Wang et al., CVPR 2025, arXiv:2503.11651), section 3.2.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from .config import FIXED_TOP, AggregatorConfig, VGGTConfig
from .layers import Block, TableCache, grid_positions, random_parameter, rotary_table
from .vit import ConvPatchEmbed, VisionTransformer

NORM_EPS = 1e-5


def token_positions(grid: tuple[int, int], num_special: int) -> Tensor:
    """(y, x) of a frame's tokens [P, 2]: special tokens at (0, 0), patches from (1, 1)."""
    special_positions = torch.zeros(num_special, 2, dtype=torch.long, device="cpu")
    return torch.cat((special_positions, grid_positions(*grid) + 1))


def _build_patch_embed(config: VGGTConfig) -> nn.Module:
    if config.patch_embed.type == "conv":
        return ConvPatchEmbed(config.patch_size, config.embed_dim)
    return VisionTransformer(
        config.patch_embed, img_size=config.img_size, patch_size=config.patch_size, embed_dim=config.embed_dim
    )


def _build_blocks(dim: int, config: AggregatorConfig) -> nn.ModuleList:
    return nn.ModuleList(
        Block(dim, config.num_heads, config.mlp_ratio, config.init_values, norm_eps=NORM_EPS, qk_norm=True)
        for _ in range(config.depth)
    )


class Aggregator(nn.Module):
    """Images to the tokens that the heads read."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim, sizes = config.embed_dim, config.aggregator
        self.patch_size = config.patch_size
        self.head_dim = dim // sizes.num_heads
        self.rope_freq = float(sizes.rope_freq)
        self.num_special = 1 + sizes.num_register_tokens
        self.camera_token = random_parameter(1, 2, 1, dim, std=0.02)
        self.register_token = random_parameter(1, 2, sizes.num_register_tokens, dim, std=0.02)
        self.patch_embed = _build_patch_embed(config)
        self.frame_blocks = _build_blocks(dim, sizes)
        self.global_blocks = _build_blocks(dim, sizes)
        self._tables = TableCache()

    def forward(self, images_BS3HW: Tensor, keep: Collection[int]) -> dict[int, Tensor]:
        """Run all layers.

        Args:
            images_BS3HW: float32 in [0, 1].
            keep: numbers of the layers whose output is wanted.

        Returns:
            {layer: [B, S, P, 2D]} for the layers in `keep`; frame block's output first.
        """
        frames = images_BS3HW.shape[:2]
        x_BSPD = self._embed(images_BS3HW)
        rotary_2PE = self._rotary(images_BS3HW.shape[-2:], x_BSPD)
        kept: dict[int, Tensor] = {}
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            framewise_BSPD = frame_block(x_BSPD.flatten(0, 1), rotary_2PE).unflatten(0, frames)
            x_BSPD = global_block(framewise_BSPD.flatten(1, 2), rotary_2PE).unflatten(1, (frames[1], -1))
            if layer in keep:
                kept[layer] = torch.cat((framewise_BSPD, x_BSPD), dim=-1)
        return kept

    def _embed(self, images_BS3HW: Tensor) -> Tensor:
        frames = images_BS3HW.shape[:2]
        patches_BSND = self.patch_embed(self._normalise(images_BS3HW).flatten(0, 1)).unflatten(0, frames)
        special_BSTD = self._expand_special(*frames)
        return torch.cat((special_BSTD, patches_BSND), dim=2)

    def _normalise(self, images_BS3HW: Tensor) -> Tensor:
        """Subtract ImageNet's mean and divide by its deviation, in float32."""
        images_BS3HW = images_BS3HW.float()
        constants = self._tables.get(
            "image statistics",
            images_BS3HW,
            lambda: torch.tensor([FIXED_TOP["image_mean"], FIXED_TOP["image_std"]], device="cpu")[..., None, None],
        )
        mean_311, std_311 = constants
        return (images_BS3HW - mean_311) / std_311

    def _expand_special(self, batch: int, num_frames: int) -> Tensor:
        """[B, S, 1 + registers, D]: row 0 for the first frame, row 1 for each other one."""
        pair_12TD = torch.cat((self.camera_token, self.register_token), dim=2)
        first_11TD, other_11TD = pair_12TD.split(1, dim=1)
        one_batch = torch.cat((first_11TD, other_11TD.expand(-1, num_frames - 1, -1, -1)), dim=1)
        return one_batch.expand(batch, -1, -1, -1)

    def _rotary(self, image_size: torch.Size, like: Tensor) -> Tensor:
        grid = (image_size[0] // self.patch_size, image_size[1] // self.patch_size)
        return self._tables.get(
            grid, like, lambda: rotary_table(token_positions(grid, self.num_special), self.head_dim, self.rope_freq)
        )
