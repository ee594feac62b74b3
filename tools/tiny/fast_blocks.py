"""The model's transformer blocks in two compiled pieces around attention, for training.

Both pieces take [frames, tokens of a frame, width] for any number of views, and their weights as arguments. So each is
compiled once for all blocks and all numbers of views. They compute the same as `layers.Block`
(`tests/test_tiny_training.py` compares).

Shapes: F frames, P tokens of a frame, D width, H heads, E head width.
"""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggt_quant.model import VGGT
from vggt_quant.model.layers import apply_rotary


def use_fast_blocks(model: VGGT, *, compiled: bool) -> None:
    """Let the blocks of patch embedding and aggregator run in pieces; the camera head's few tokens stay as they are."""
    before, after = (torch.compile(f, dynamic=False) if compiled else f for f in (_before, _after))
    aggregator = model.aggregator
    for block in [*aggregator.patch_embed.blocks, *aggregator.frame_blocks, *aggregator.global_blocks]:
        block.forward = types.MethodType(_forward_with(before, after), block)


def _forward_with(before: types.FunctionType, after: types.FunctionType) -> types.FunctionType:
    def forward(self: nn.Module, x_BND: Tensor, rotary_2PE: Tensor | None = None) -> Tensor:
        batch, tokens, width = x_BND.shape
        frame = tokens if rotary_2PE is None else rotary_2PE.shape[1]
        frames_FPD, attention = x_BND.reshape(-1, frame, width), self.attn
        norms = (attention.q_norm, attention.k_norm) if isinstance(attention.q_norm, nn.LayerNorm) else ()
        heads = before(
            frames_FPD, rotary_2PE, attention.num_heads, self.norm1.eps, self.norm1.weight, self.norm1.bias,
            attention.qkv.weight, attention.qkv.bias, [w for norm in norms for w in (norm.weight, norm.bias)],
        )  # fmt: skip
        q, k, v = (x.reshape(batch, tokens, attention.num_heads, -1).transpose(1, 2) for x in heads)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(frames_FPD.shape)
        return after(
            frames_FPD, attended, self.norm2.eps, attention.proj.weight, attention.proj.bias, self.ls1.gamma,
            self.norm2.weight, self.norm2.bias, self.mlp.fc1.weight, self.mlp.fc1.bias,
            self.mlp.fc2.weight, self.mlp.fc2.bias, self.ls2.gamma,
        ).view(x_BND.shape)  # fmt: skip

    return forward


def _before(
    x_FPD: Tensor, rotary_2PE: Tensor | None, num_heads: int, eps: float, norm_w: Tensor, norm_b: Tensor,
    qkv_w: Tensor, qkv_b: Tensor, qk_norms: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """norm1, qkv, query and key norms, rotation: q, k, v [F, P, H, E] in one dtype."""
    normed = functional.layer_norm(x_FPD, x_FPD.shape[-1:], norm_w, norm_b, eps)
    qkv = functional.linear(normed, qkv_w, qkv_b).unflatten(-1, (3, num_heads, -1))
    q, k, v = qkv.unbind(dim=2)
    if qk_norms:
        q_w, q_b, k_w, k_b = qk_norms
        q = functional.layer_norm(q, q.shape[-1:], q_w, q_b, 1e-5)
        k = functional.layer_norm(k, k.shape[-1:], k_w, k_b, 1e-5)
    if rotary_2PE is not None:
        q, k = (apply_rotary(x.transpose(1, 2), rotary_2PE).transpose(1, 2) for x in (q, k))
    return q.to(v.dtype).contiguous(), k.to(v.dtype).contiguous(), v.contiguous()


def _after(
    x_FPD: Tensor, attended_FPD: Tensor, eps: float, proj_w: Tensor, proj_b: Tensor, ls1: Tensor, norm_w: Tensor,
    norm_b: Tensor, fc1_w: Tensor, fc1_b: Tensor, fc2_w: Tensor, fc2_b: Tensor, ls2: Tensor,
) -> Tensor:  # fmt: skip
    """The attention's projection, both residual sums, and the MLP."""
    x_FPD = x_FPD + ls1 * functional.linear(attended_FPD, proj_w, proj_b)
    normed = functional.layer_norm(x_FPD, x_FPD.shape[-1:], norm_w, norm_b, eps)
    hidden = functional.gelu(functional.linear(normed, fc1_w, fc1_b))
    return x_FPD + ls2 * functional.linear(hidden, fc2_w, fc2_b)
