"""The camera head on the kernels. It has few tokens, so its time depends on the number of kernel launches."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from vggt_quant.inference.attention import torch_sdpa
from vggt_quant.inference.fast.blocks import FastBlock, stream_of
from vggt_quant.inference.fast.linears import multiplier, multiply
from vggt_quant.kernels import rows
from vggt_quant.model.camera_head import CameraHead, activate_pose
from vggt_quant.model.layers import Block


class FastCameraHead:
    """A `CameraHead` for one scene."""

    def __init__(self, head: CameraHead) -> None:
        self.head = head
        self.blocks = [FastBlock(cast(Block, block), torch_sdpa.attend) for block in head.trunk]
        self.modulation = multiplier(head.poseLN_modulation[1])
        self.fc1, self.fc2 = multiplier(head.pose_branch.fc1), multiplier(head.pose_branch.fc2)

    def run(self, camera_tokens_SK: Tensor) -> list[Tensor]:
        """Camera tokens to the poses [S, 9], float32, of every iteration."""
        head, norm = self.head, self.head.token_norm
        tokens = rows.layer_norm(camera_tokens_SK, norm.weight, norm.bias, norm.eps, "bfloat16")
        normalised = head.adaln_norm(tokens)
        fed_back = head.empty_pose_tokens[0].expand(len(tokens), -1)
        raw_pose, poses = torch.zeros_like(fed_back, dtype=torch.float32), []
        for _ in range(head.num_iterations):
            embedded = functional.silu(head.embed_pose(fed_back.to(tokens.dtype)))
            shift, scale, gate = multiply(self.modulation, embedded).chunk(3, dim=-1)
            raw_pose = raw_pose + self._change(torch.addcmul(tokens, gate, torch.addcmul(shift, normalised, 1 + scale)))
            poses.append(activate_pose(raw_pose))
            fed_back = raw_pose
        return poses

    def _change(self, modulated_SK: Tensor) -> Tensor:
        stream = stream_of(modulated_SK)
        for block in self.blocks:
            block.run(stream, sequences=1)
        hidden = self.fc1.multiply(stream.norm(self.head.trunk_norm, self.fc1.operand))
        return self.fc2.multiply(rows.gelu(hidden, self.fc2.operand)).float()
