"""Images to patch tokens: one convolution, or DINOv2's vision transformer with registers.

The transformer adds its positional embedding to the cls token and the patches, inserts the registers after cls, runs
its blocks and returns the normalised patch tokens alone. The embedding is stored for one square grid and resized to
any other; that depends on weights, costs little and is therefore done in every forward.

Shapes: F frames, N patches, D width, h w patch grid, H W image, M side of the stored positional grid.

Sources: DINOv2 (Oquab et al., arXiv:2304.07193); registers (Darcet et al., arXiv:2309.16588).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import PatchEmbedConfig
from .layers import Block, random_parameter

NORM_EPS = 1e-6


def resize_positions(pos_embed_1LD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a positional embedding to another patch grid, in float32.

    Args:
        pos_embed_1LD: [1, 1 + M * M, D]: the row of cls, which stays, then the grid row-major.
        grid: wanted rows and columns.

    Returns:
        [1, 1 + h * w, D] in the dtype of the embedding.
    """
    cls_11D, patches_1LD = pos_embed_1LD[:, :1], pos_embed_1LD[:, 1:]
    side = math.isqrt(patches_1LD.shape[1])
    assert side * side == patches_1LD.shape[1], pos_embed_1LD.shape
    if grid == (side, side):
        return pos_embed_1LD
    patches_1DMM = patches_1LD.transpose(1, 2).unflatten(2, (side, side)).float()
    # antialias also picks another cubic kernel (a = -0.5 for -0.75), so it matters when the grid grows, too.
    resized_1Dhw = F.interpolate(patches_1DMM, size=grid, mode="bicubic", antialias=True, align_corners=False)
    resized_1LD = resized_1Dhw.flatten(2).transpose(1, 2)
    return torch.cat((cls_11D, resized_1LD.to(cls_11D.dtype)), dim=1)


class ConvPatchEmbed(nn.Module):
    """One token per patch by a convolution whose stride is the patch."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images_F3HW: Tensor) -> Tensor:
        """Normalised images to tokens [F, N, D], row-major; the images are cast to the weight's dtype."""
        return self.proj(images_F3HW.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2 with registers, reduced to its patch tokens."""

    def __init__(self, config: PatchEmbedConfig, *, img_size: int, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        num_patches = (img_size // patch_size) ** 2
        self.patch_size = patch_size
        self.patch_embed = ConvPatchEmbed(patch_size, embed_dim)
        self.cls_token = random_parameter(1, 1, embed_dim, std=0.02)
        self.pos_embed = random_parameter(1, 1 + num_patches, embed_dim, std=0.02)
        self.register_tokens = random_parameter(1, config.num_register_tokens, embed_dim, std=0.02)
        # Only DINOv2's own pre-training masks patches; the checkpoints still carry the token.
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                embed_dim, config.num_heads, config.mlp_ratio, config.init_values, norm_eps=NORM_EPS, qk_norm=False
            )
            for _ in range(config.depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)

    def forward(self, images_F3HW: Tensor) -> Tensor:
        """Normalised images to patch tokens [F, N, D], row-major."""
        num_frames, _, height, width = images_F3HW.shape
        patches_FND = self.patch_embed(images_F3HW)
        x = torch.cat((self.cls_token.expand(num_frames, -1, -1), patches_FND), dim=1)
        x = x + resize_positions(self.pos_embed, (height // self.patch_size, width // self.patch_size))
        x = torch.cat((x[:, :1], self.register_tokens.expand(num_frames, -1, -1), x[:, 1:]), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.register_tokens.shape[1] :]
