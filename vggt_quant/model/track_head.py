"""Tracks of query points through all frames, by repeated correction.

A DPT head turns the tokens into feature maps. A track starts as its query point in every frame, with the features found
there. Each iteration correlates the features around the current points (correlation pyramid). A transformer takes these
correlations, the motion since the first frame and the features, and predicts a correction of points and features. The
point in the first frame never moves. Visibility and confidence are computed from the final features.

Coordinates, features and correlations are float32 whatever the weights are.

Shapes: B batch, S frames, N points, C features, D token width of the tracker, h w feature map, H W image.

Sources: VGGT (Wang et al., CVPR 2025, arXiv:2503.11651); VGGSfM (Wang et al., CVPR 2024, arXiv:2312.04563).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .config import TrackHeadConfig
from .dpt_head import DPTHead
from .layers import Mlp, TableCache, random_parameter
from .track_correlation import CorrelationPyramid, axis_code, motion_code, place_code, sample_features
from .track_transformer import TrackTransformer


class TrackHead(nn.Module):
    """Patch tokens and query points to tracks."""

    def __init__(self, config: TrackHeadConfig) -> None:
        super().__init__()
        self.min_side = config.down_ratio * 2 ** (config.corr_levels - 1)
        self.feature_extractor = DPTHead(
            dim_in=config.dim_in,
            patch_size=config.patch_size,
            features=config.features,
            out_channels=config.out_channels,
            layers=config.intermediate_layer_idx,
            output_dim=None,
            plane_codes=False,
            down_ratio=config.down_ratio,
        )
        self.tracker = Tracker(config)

    def forward(
        self, patch_tokens: Mapping[int, Tensor], image_size: tuple[int, int], query_points_BN2: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Track points through the frames.

        Args:
            patch_tokens: [B, S, patches, dim_in] by aggregator layer.
            image_size: (H, W) of the images in pixels.
            query_points_BN2: pixels (x, y) in the first frame, float32.

        Returns:
            Tracks [B, S, N, 2] in pixels after each iteration, visibility [B, S, N] and confidence [B, S, N] in
            [0, 1]; all float32.

        Raises:
            ValueError: the images are too small for the correlation pyramid.
        """
        if min(image_size) < self.min_side:
            raise ValueError(
                f"Images are {image_size[0]} x {image_size[1]} pixels; tracking needs at least {self.min_side} a side."
            )
        return self.tracker(self.feature_extractor(patch_tokens, image_size), query_points_BN2)


class Tracker(nn.Module):
    """Feature maps and query points to tracks."""

    def __init__(self, config: TrackHeadConfig) -> None:
        super().__init__()
        features = config.features
        # Motion code, its two raw values twice, correlations, features.
        dim = features + 4 + features + features
        self.iters, self.stride, self.max_scale = config.iters, config.stride, config.max_scale
        self.corr_levels, self.corr_radius = config.corr_levels, config.corr_radius
        window = (2 * config.corr_radius + 1) ** 2
        self.corr_mlp = Mlp(config.corr_levels * window, config.hidden_size, features)
        self.updateformer = TrackTransformer(
            dim_in=dim,
            dim_out=2 + features,
            hidden_size=config.hidden_size,
            depth=config.tracker_depth,
            num_heads=config.tracker_num_heads,
            num_virtual_tracks=config.num_virtual_tracks,
        )
        self.query_ref_token = random_parameter(1, 2, dim)
        self.fmap_norm = nn.LayerNorm(features, eps=1e-5)
        self.ffeat_norm = nn.LayerNorm(features, eps=1e-5)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))
        self._codes = TableCache()

    def forward(self, maps_BSChw: Tensor, query_points_BN2: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """As `TrackHead`, from feature maps [B, S, C, h, w]."""
        maps = self.fmap_norm(maps_BSChw.to(self._dtype).movedim(2, -1)).movedim(-1, 2).float()
        num_frames = maps.shape[1]
        start_BN2 = query_points_BN2.float() / self.stride
        points_BNS2 = start_BN2.unsqueeze(2).expand(-1, -1, num_frames, -1)
        features_BNSC = sample_features(maps[:, 0], start_BN2).unsqueeze(2).expand(-1, -1, num_frames, -1)
        pyramid = CorrelationPyramid(maps.flatten(0, 1), self.corr_levels, self.corr_radius)
        identity_BNSD = self._identity_code(start_BN2, num_frames, tuple(maps.shape[-2:]))
        tracks = []
        for _ in range(self.iters):
            tokens_BNSD = self._describe(pyramid, points_BNS2, features_BNSC) + identity_BNSD
            update = self.updateformer(tokens_BNSD)
            points_BNS2 = torch.cat((points_BNS2[:, :, :1], (points_BNS2 + update[..., :2])[:, :, 1:]), dim=2)
            features_BNSC = features_BNSC + self.ffeat_updater(self.ffeat_norm(update[..., 2:].to(self._dtype)))
            tracks.append(points_BNS2.transpose(1, 2) * self.stride)
        return tracks, self._score(self.vis_predictor, features_BNSC), self._score(self.conf_predictor, features_BNSC)

    def _describe(self, pyramid: CorrelationPyramid, points_BNS2: Tensor, features_BNSC: Tensor) -> Tensor:
        """What is known of each point in each frame, [B, N, S, D]."""
        shape = (len(points_BNS2), -1)
        correlations = pyramid.correlate(
            features_BNSC.transpose(1, 2).flatten(0, 1), points_BNS2.transpose(1, 2).flatten(0, 1)
        )
        correlations_BNSK = correlations.unflatten(0, shape).transpose(1, 2)
        surroundings = self.corr_mlp(correlations_BNSK.to(self._dtype))
        motion = points_BNS2 - points_BNS2[:, :, :1]
        scaled = motion / self.max_scale
        code = motion_code(motion, features_BNSC.shape[-1] // 2)
        return torch.cat((code, scaled, scaled, surroundings, features_BNSC), dim=-1)

    def _identity_code(self, start_BN2: Tensor, num_frames: int, map_size: tuple[int, int]) -> Tensor:
        """Where a track starts, and whether a frame is the first; the same in every iteration. [B, N, S, D]."""
        half = self.query_ref_token.shape[-1] // 2
        height, width = map_size
        code_x = self._codes.get((half, width), start_BN2, lambda: axis_code(half, width))
        code_y = self._codes.get((half, height), start_BN2, lambda: axis_code(half, height))
        place = place_code(code_x, code_y, start_BN2).unsqueeze(2)
        first, later = self.query_ref_token.split(1, dim=1)
        return place + torch.cat((first, later.expand(-1, num_frames - 1, -1)), dim=1).unsqueeze(1)

    def _score(self, predictor: nn.Module, features_BNSC: Tensor) -> Tensor:
        """[B, S, N] in [0, 1]."""
        return predictor(features_BNSC.to(self._dtype)).float().sigmoid().squeeze(-1).transpose(1, 2)

    @property
    def _dtype(self) -> torch.dtype:
        return self.fmap_norm.weight.dtype
