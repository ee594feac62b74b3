"""The tracker's inputs for a point: correlations around it in the feature maps, its motion and its position.

Points are (x, y) in pixels of the map they are sampled from, pixel centres on the integers. All is float32, because
bfloat16 cannot represent neighbouring pixels beyond 256.

Shapes: F frames, N points, C channels, h w map, K side of the correlation window, L length of an axis.

Sources: CoTracker (Karaev et al., ECCV 2024, arXiv:2307.07635); VGGSfM (Wang et al., CVPR 2024, arXiv:2312.04563).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MOTION_TOP_FREQUENCY = 1000.0
PLACE_BASE = 10000.0


def sample_bilinear(maps_FChw: Tensor, points_FAB2: Tensor, padding: str) -> Tensor:
    """Read maps at a grid of points.

    Args:
        maps_FChw: float32 maps.
        points_FAB2: A x B points of each frame.
        padding: what lies outside the map: "zeros", or "border" for its nearest pixel.

    Returns:
        [F, C, A, B] float32. An axis of one pixel is constant.
    """
    height, width = maps_FChw.shape[-2:]
    x, y = points_FAB2.unbind(-1)
    grid = torch.stack((x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1), dim=-1)
    return F.grid_sample(maps_FChw, grid, mode="bilinear", padding_mode=padding, align_corners=True)


def sample_features(maps_FChw: Tensor, points_FN2: Tensor) -> Tensor:
    """Features [F, N, C] of points; outside the map those of its nearest pixel."""
    return sample_bilinear(maps_FChw, points_FN2.unsqueeze(2), "border").squeeze(3).mT


class CorrelationPyramid:
    """Feature maps at resolutions 1, 1/2, 1/4, ...; correlates point features with a window around each point.

    The windows are sampled from the features and then correlated. Sampling is linear, so this equals sampling a whole
    correlation map per point, which would take h * w instead of K * K * C values a point.
    """

    def __init__(self, maps_FChw: Tensor, num_levels: int, radius: int) -> None:
        self.radius = radius
        self.levels = [maps_FChw]
        for _ in range(num_levels - 1):
            self.levels.append(F.avg_pool2d(self.levels[-1], 2))

    def correlate(self, features_FNC: Tensor, points_FN2: Tensor) -> Tensor:
        """Scalar products over sqrt(C).

        Args:
            features_FNC: float32 features of the points.
            points_FN2: pixels of the finest level.

        Returns:
            [F, N, levels * K * K] float32; finest level first, x moves slower than y, zero outside the maps.
        """
        offsets = torch.arange(-self.radius, self.radius + 1, device=points_FN2.device, dtype=points_FN2.dtype)
        window_KK2 = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1).flatten(0, 1)
        correlations = []
        for level, maps_FChw in enumerate(self.levels):
            points = points_FN2.unsqueeze(2) / 2**level + window_KK2
            windows_FCNK = sample_bilinear(maps_FChw, points, "zeros")
            correlations.append(torch.einsum("fcnk,fnc->fnk", windows_FCNK, features_FNC))
        return torch.cat(correlations, dim=-1) / math.sqrt(features_FNC.shape[-1])


def motion_code(motion: Tensor, channels: int) -> Tensor:
    """Sines and cosines of a motion, interleaved, at frequencies from 0 in steps of 2 * 1000 / channels.

    The largest angles span many turns, so only the same float32 arithmetic reproduces the original's values.

    Args:
        motion: [..., 2] float32, pixels (x, y).
        channels: per axis, even.

    Returns:
        [..., 2 * channels] float32: x, then y.
    """
    steps = torch.arange(0, channels, 2, device=motion.device, dtype=torch.float32)
    angles = motion.unsqueeze(-1) * (steps * (MOTION_TOP_FREQUENCY / channels))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)


def axis_code(channels: int, length: int) -> Tensor:
    """Sines, then cosines, of the positions 0 .. length - 1 along one axis.

    Args:
        channels: even; half are sines, at frequencies 10000^-(i / half).
        length: positions.

    Returns:
        [channels, length] float32, computed in float64.
    """
    half = channels // 2
    frequencies = PLACE_BASE ** -(torch.arange(half, dtype=torch.float64, device="cpu") / half)
    angles = frequencies[:, None] * torch.arange(length, dtype=torch.float64, device="cpu")
    return torch.cat((angles.sin(), angles.cos())).float()


def place_code(code_x_CL: Tensor, code_y_CL: Tensor, points_FN2: Tensor) -> Tensor:
    """Bilinear samples of the plane's code: the x code in the first half of the channels, the y code in the second.

    Each half varies along one axis only, so a line is sampled instead of a plane.

    Args:
        code_x_CL: `axis_code` of the map's width.
        code_y_CL: `axis_code` of the map's height.
        points_FN2: pixels of the map; outside it the code of its nearest pixel.

    Returns:
        [F, N, C], C the sum of both codes' channels.
    """
    halves = []
    for code_CL, along in ((code_x_CL, points_FN2[..., 0]), (code_y_CL, points_FN2[..., 1])):
        line_FC1L = code_CL.unsqueeze(1).expand(len(points_FN2), -1, -1, -1)
        halves.append(sample_features(line_FC1L, torch.stack((along, torch.zeros_like(along)), dim=-1)))
    return torch.cat(halves, dim=-1)
