"""Dense maps from the tokens of four aggregator layers: a DPT head.

Each layer's patch tokens become a feature map at its own resolution (4, 2, 1 and 1/2 of the patch grid); four fusion
blocks merge them from coarse to fine, and convolutions at image resolution end in the output map. A sine-cosine code
of the image plane is added before the fusion and before the last convolutions.

`DPTHead` returns raw maps: logits that `activate_dense` turns into values and confidences, or, without `output_dim`,
the feature maps of the tracker. At most `frames_per_chunk` frames are in memory at once.

In a residual unit and at the entry of a fusion the ReLU acts on the stream itself: what is added later is relu(x), not
x. The released weights were trained that way.

Shapes: B batch, S frames, F = B * S or a chunk of it, N patches, D token width, C channels, h w patch grid, H W image.

Source: DPT (Ranftl et al., ICCV 2021, arXiv:2103.13413).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import TableCache

FRAMES_PER_CHUNK = 8
PLANE_CODE_SCALE = 0.1
PLANE_CODE_BASE = 100.0


def plane_code(channels: int, height: int, width: int, image_aspect: float) -> Tensor:
    """Sine-cosine code of the image plane.

    The plane's diagonal has length 2 and its sides the image's aspect; samples lie at the centres of the cells.
    Computed in float64: the code is exact to float32 whatever dtype it is used in.

    Args:
        channels: a multiple of 4: sin x, cos x, sin y, cos y, a quarter each.
        height: rows of the map.
        width: columns of the map.
        image_aspect: width / height of the image.

    Returns:
        [channels, height, width] float32, already scaled by PLANE_CODE_SCALE.
    """
    diagonal = math.hypot(image_aspect, 1.0)
    quarter = channels // 4
    omega = PLANE_CODE_BASE ** -(torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)

    def code(samples: int, half_side: float) -> Tensor:
        end = half_side * (samples - 1) / samples
        angles = omega[:, None] * torch.linspace(-end, end, samples, dtype=torch.float64, device="cpu")
        return torch.cat((angles.sin(), angles.cos()))

    code_x = code(width, image_aspect / diagonal)[:, None, :].expand(-1, height, -1)
    code_y = code(height, 1.0 / diagonal)[:, :, None].expand(-1, -1, width)
    return (PLANE_CODE_SCALE * torch.cat((code_x, code_y))).float()


def activate_dense(logits: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Turn logits into values and confidences.

    Args:
        logits: [..., C, H, W]; the last channel is the confidence.
        activation: "exp", or "inv_log" for sign(y) * expm1(|y|).

    Returns:
        Values [..., H, W, C - 1] and confidences [..., H, W], at least 1; both float32.
    """
    logits = logits.float().movedim(-3, -1)
    values, confidence = logits[..., :-1], logits[..., -1]
    values = values.exp() if activation == "exp" else values.sign() * values.abs().expm1()
    return values, 1.0 + confidence.exp()


def resize(x_FChw: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corner pixels on corner pixels."""
    return F.interpolate(x_FChw, size=size, mode="bilinear", align_corners=True)


class ResidualConvUnit(nn.Module):
    """relu(x) + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_FChw: Tensor) -> Tensor:
        """Shape-preserving."""
        x_FChw = F.relu(x_FChw)
        return x_FChw + self.conv2(F.relu(self.conv1(x_FChw)))


class FusionBlock(nn.Module):
    """Add a finer level to the coarser ones, refine, and grow to the next size."""

    def __init__(self, channels: int, *, has_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x_FChw: Tensor, skip_FChw: Tensor | None, size: tuple[int, int]) -> Tensor:
        """[F, C, h, w] and the level to add, of the same shape, give [F, C, *size]."""
        if skip_FChw is not None:
            x_FChw = x_FChw + self.resConfUnit1(skip_FChw)
        return self.out_conv(resize(self.resConfUnit2(x_FChw), size))


def _build_resize_layers(out_channels: tuple[int, int, int, int]) -> nn.ModuleList:
    c0, c1, _, c3 = out_channels
    grow4 = nn.ConvTranspose2d(c0, c0, kernel_size=4, stride=4)
    grow2 = nn.ConvTranspose2d(c1, c1, kernel_size=2, stride=2)
    return nn.ModuleList([grow4, grow2, nn.Identity(), nn.Conv2d(c3, c3, 3, stride=2, padding=1)])


def _build_scratch(features: int, out_channels: tuple[int, int, int, int], output_dim: int | None) -> nn.Module:
    """Fusion and output layers under the names the checkpoints give them."""
    scratch = nn.Module()
    for level, channels in enumerate(out_channels, start=1):
        scratch.add_module(f"layer{level}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
        scratch.add_module(f"refinenet{level}", FusionBlock(features, has_skip=level < 4))
    if output_dim is None:
        scratch.output_conv1 = nn.Conv2d(features, features, 3, padding=1)
        scratch.output_conv2 = nn.Identity()
        return scratch
    scratch.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
    scratch.output_conv2 = nn.Sequential(
        nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, output_dim, 1)
    )
    return scratch


class DPTHead(nn.Module):
    """Tokens of four layers to one map per frame.

    Args:
        dim_in: token width D.
        patch_size: pixels of a patch's side.
        features: channels of the fusion blocks.
        out_channels: channels of the four levels, finest first.
        layers: the aggregator layer of each level.
        output_dim: channels of the output map; None leaves out the last convolutions and returns `features` channels.
        plane_codes: whether the code of the image plane is added.
        down_ratio: image pixels per pixel of the output map.
    """

    def __init__(
        self,
        *,
        dim_in: int,
        patch_size: int,
        features: int,
        out_channels: tuple[int, int, int, int],
        layers: tuple[int, int, int, int],
        output_dim: int | None,
        plane_codes: bool,
        down_ratio: int = 1,
    ) -> None:
        super().__init__()
        self.patch_size, self.down_ratio, self.layers, self.plane_codes = patch_size, down_ratio, layers, plane_codes
        self.norm = nn.LayerNorm(dim_in, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(dim_in, channels, 1) for channels in out_channels)
        self.resize_layers = _build_resize_layers(out_channels)
        self.scratch: Any = _build_scratch(features, out_channels, output_dim)
        self.frames_per_chunk = FRAMES_PER_CHUNK
        self._codes = TableCache()

    def forward(self, patch_tokens: Mapping[int, Tensor], image_size: tuple[int, int]) -> Tensor:
        """Patch tokens [B, S, N, D] by aggregator layer, and the images' (H, W), give raw maps.

        Returns:
            [B, S, C, H / down_ratio, W / down_ratio] in the head's dtype; C is output_dim or features.
        """
        levels_FND = [patch_tokens[layer].flatten(0, 1) for layer in self.layers]
        chunks = zip(*(level.split(self.frames_per_chunk) for level in levels_FND), strict=True)
        maps_FCHW = torch.cat([self._forward_chunk(chunk, image_size) for chunk in chunks])
        return maps_FCHW.unflatten(0, patch_tokens[self.layers[0]].shape[:2])

    def _forward_chunk(self, levels_FND: tuple[Tensor, ...], image_size: tuple[int, int]) -> Tensor:
        levels = [self._embed_level(i, level_FND, image_size) for i, level_FND in enumerate(levels_FND)]
        fused = self.scratch.output_conv1(self._fuse(levels))
        fused = resize(fused, (image_size[0] // self.down_ratio, image_size[1] // self.down_ratio))
        return self.scratch.output_conv2(self._add_plane_code(fused, image_size))

    def _embed_level(self, level: int, tokens_FND: Tensor, image_size: tuple[int, int]) -> Tensor:
        grid = (image_size[0] // self.patch_size, image_size[1] // self.patch_size)
        tokens_FND = self.norm(tokens_FND.to(self.norm.weight.dtype))
        x_FChw = self.projects[level](tokens_FND.transpose(1, 2).unflatten(2, grid))
        x_FChw = self.resize_layers[level](self._add_plane_code(x_FChw, image_size))
        return getattr(self.scratch, f"layer{level + 1}_rn")(x_FChw)

    def _fuse(self, levels: list[Tensor]) -> Tensor:
        """Coarse to fine; each block grows to the next finer level's size, the last one to twice the finest."""
        height, width = levels[0].shape[-2:]
        sizes = [(2 * height, 2 * width), *((level.shape[-2], level.shape[-1]) for level in levels[:3])]
        x = self.scratch.refinenet4(levels[3], None, sizes[3])
        x = self.scratch.refinenet3(x, levels[2], sizes[2])
        x = self.scratch.refinenet2(x, levels[1], sizes[1])
        return self.scratch.refinenet1(x, levels[0], sizes[0])

    def _add_plane_code(self, x_FChw: Tensor, image_size: tuple[int, int]) -> Tensor:
        if not self.plane_codes:
            return x_FChw
        shape, aspect = (x_FChw.shape[1], x_FChw.shape[2], x_FChw.shape[3]), image_size[1] / image_size[0]
        return x_FChw + self._codes.get((shape, aspect), x_FChw, lambda: plane_code(*shape, aspect))
