"""The whole VGGT: photos of a scene in, cameras, depth maps, point maps and tracks out.

State-dict names and shapes are those of the released checkpoints. Weights may be float32, bfloat16 or float16; images
are normalised, poses accumulated and dense logits activated in float32, and every output is float32. Under autocast
the camera, depth and point heads run in the dtype of their own weights, as upstream runs them; the tracker follows
the caller's autocast.

Building it costs a full random initialisation: to load weights, build it under `torch.device("meta")` and use
`load_state_dict(weights, strict=True, assign=True)`.

Shapes: B batch, S frames, P tokens of a frame, D embedding width, H W image, Q query points.

Source: VGGT (Wang et al., CVPR 2025, arXiv:2503.11651).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .aggregator import Aggregator
from .camera_head import CameraHead
from .config import DenseHeadConfig, VGGTConfig
from .dpt_head import DPTHead, activate_dense
from .track_head import TrackHead


def build_dense_head(config: DenseHeadConfig) -> DPTHead:
    """A DPT head that ends in logits at image resolution."""
    return DPTHead(
        dim_in=config.dim_in,
        patch_size=config.patch_size,
        features=config.features,
        out_channels=config.out_channels,
        layers=config.intermediate_layer_idx,
        output_dim=config.output_dim,
        plane_codes=True,
    )


class VGGT(nn.Module):
    """The model a `VGGTConfig` describes; `config` keeps it."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config.camera_head) if config.camera_head else None
        self.depth_head = build_dense_head(config.depth_head) if config.depth_head else None
        self.point_head = build_dense_head(config.point_head) if config.point_head else None
        self.track_head = TrackHead(config.track_head) if config.track_head else None

    def forward(self, images: Tensor, query_points: Tensor | None = None) -> dict[str, Tensor | list[Tensor]]:
        """Reconstruct one or more scenes.

        Args:
            images: [S, 3, H, W] or [B, S, 3, H, W], floating point in [0, 1]; H and W multiples of the patch size.
            query_points: [Q, 2] or [B, Q, 2], pixels (x, y) in the first frame; None leaves out the tracks.

        Returns:
            float32 tensors, always with B in front, of the heads the model has:
            pose_enc [B, S, 9] and pose_enc_list, the same after every iteration (a list);
            depth [B, S, H, W, 1], depth_conf [B, S, H, W]; world_points [B, S, H, W, 3], world_points_conf
            [B, S, H, W]; images [B, S, 3, H, W]; with query points track [B, S, Q, 2] in pixels, vis and conf
            [B, S, Q].

        Raises:
            ValueError: images or query points have a shape or dtype the model cannot take.
        """
        images = self._check_images(images)
        tokens = self.aggregator(images, self.kept_layers())
        patch_tokens = {layer: kept[:, :, self.aggregator.num_special :] for layer, kept in tokens.items()}
        with _autocast_off(images.device):
            height, width = images.shape[-2:]
            outputs = self._predict_cameras(tokens) | self._predict_dense(patch_tokens, (height, width))
        outputs["images"] = images.float()
        if query_points is not None:
            outputs |= self._predict_tracks(patch_tokens, images, query_points)
        return outputs

    def kept_layers(self) -> frozenset[int]:
        """Numbers of the aggregator layers that a head reads."""
        dense = (self.config.depth_head, self.config.point_head, self.config.track_head)
        read = {layer for head in dense if head for layer in head.intermediate_layer_idx}
        return frozenset(read | {self.config.aggregator.depth - 1})

    def _predict_cameras(self, tokens: dict[int, Tensor]) -> dict[str, Tensor | list[Tensor]]:
        if self.camera_head is None:
            return {}
        poses = self.camera_head(tokens[self.config.aggregator.depth - 1][:, :, 0])
        return {"pose_enc": poses[-1], "pose_enc_list": poses}

    def _predict_dense(self, patch_tokens: dict[int, Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        outputs = {}
        if self.depth_head is not None and self.config.depth_head is not None:
            logits = self.depth_head(patch_tokens, image_size)
            outputs["depth"], outputs["depth_conf"] = activate_dense(logits, self.config.depth_head.activation)
        if self.point_head is not None and self.config.point_head is not None:
            logits = self.point_head(patch_tokens, image_size)
            points, confidence = activate_dense(logits, self.config.point_head.activation)
            outputs |= {"world_points": points, "world_points_conf": confidence}
        return outputs

    def _predict_tracks(
        self, patch_tokens: dict[int, Tensor], images: Tensor, query_points: Tensor
    ) -> dict[str, Tensor]:
        query_points = self._check_query_points(query_points, len(images))
        assert self.track_head is not None
        tracks, visibility, confidence = self.track_head(patch_tokens, tuple(images.shape[-2:]), query_points)
        return {"track": tracks[-1].float(), "vis": visibility.float(), "conf": confidence.float()}

    def _check_images(self, images: Tensor) -> Tensor:
        shape, patch = list(images.shape), self.config.patch_size
        if images.ndim not in (4, 5) or shape[-3] != 3 or 0 in shape:
            raise ValueError(
                f"Images have shape {shape}; give [S, 3, H, W] or [B, S, 3, H, W] with no empty dimension."
            )
        if shape[-2] % patch or shape[-1] % patch:
            raise ValueError(
                f"Images are {shape[-2]} x {shape[-1]} pixels; resize or crop both sides to multiples of {patch}."
            )
        if not images.is_floating_point():
            raise ValueError(f"Images have dtype {images.dtype}; give floating-point values in [0, 1].")
        return images if images.ndim == 5 else images.unsqueeze(0)

    def _check_query_points(self, query_points: Tensor, batch: int) -> Tensor:
        if self.track_head is None:
            raise ValueError("Query points were given to a model without a track head; leave them out or add the head.")
        shape = list(query_points.shape)
        query_points = query_points if query_points.ndim == 3 else query_points.unsqueeze(0)
        if query_points.ndim != 3 or query_points.shape[0] != batch or query_points.shape[-1] != 2 or 0 in shape:
            raise ValueError(f"Query points have shape {shape}; give [Q, 2] or [B, Q, 2] with B = {batch}.")
        return query_points.float()


def _autocast_off(device: torch.device) -> AbstractContextManager[None]:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
