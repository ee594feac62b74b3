"""Camera tokens to poses, refined over a few iterations.

Each iteration embeds the pose so far, modulates the camera token with it (shift, scale and gate, as in DiT), lets the
frames attend to each other in a small trunk and predicts a change of the pose. The raw pose is what accumulates and
what is fed back, in float32 whatever the weights' dtype; fields of view pass a ReLU only on the way out.

A pose is 9 numbers: translation (3), quaternion xyzw not normalised (4), vertical and horizontal field of view in
radians (2). It maps world to camera, OpenCV axes.

Shapes: B batch, S frames, D token width.

Sources: VGGT (arXiv:2503.11651), section 3.3; adaptive layer norm (Peebles and Xie, arXiv:2212.09748).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import CameraHeadConfig
from .layers import Block, Mlp

POSE_SIZE = 9
NUM_FOV = 2
NORM_EPS = 1e-5


def activate_pose(raw_pose: Tensor) -> Tensor:
    """Raw pose [..., 9] to a pose whose fields of view are not negative."""
    placed, fov = raw_pose.split((POSE_SIZE - NUM_FOV, NUM_FOV), dim=-1)
    return torch.cat((placed, F.relu(fov)), dim=-1)


class CameraHead(nn.Module):
    """The pose regressor."""

    def __init__(self, config: CameraHeadConfig) -> None:
        super().__init__()
        dim = config.dim_in
        self.num_iterations = config.num_iterations
        self.token_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = nn.Linear(POSE_SIZE, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.trunk = nn.Sequential(
            *(
                Block(dim, config.num_heads, config.mlp_ratio, config.init_values, norm_eps=NORM_EPS, qk_norm=False)
                for _ in range(config.trunk_depth)
            )
        )
        self.trunk_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pose_branch = Mlp(dim, dim // 2, POSE_SIZE)

    def forward(self, camera_tokens_BSD: Tensor) -> list[Tensor]:
        """Camera tokens of the last aggregator layer to the poses [B, S, 9], float32, of every iteration."""
        dtype = self.token_norm.weight.dtype
        tokens_BSD = self.token_norm(camera_tokens_BSD.to(dtype))
        normalised_BSD = self.adaln_norm(tokens_BSD)
        fed_back = self.empty_pose_tokens.expand(*tokens_BSD.shape[:2], -1)
        raw_pose = torch.zeros_like(fed_back, dtype=torch.float32)
        poses = []
        for _ in range(self.num_iterations):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(fed_back.to(dtype))).chunk(3, dim=-1)
            modulated_BSD = gate * (normalised_BSD * (1 + scale) + shift) + tokens_BSD
            change = self.pose_branch(self.trunk_norm(self.trunk(modulated_BSD)))
            raw_pose = raw_pose + change.float()
            poses.append(activate_pose(raw_pose))
            # Each iteration learns from its own loss, not through those after it.
            raw_pose = fed_back = raw_pose.detach()
        return poses
