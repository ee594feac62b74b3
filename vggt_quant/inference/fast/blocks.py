"""A transformer block as a sequence of kernels over a residual stream.

A sublayer's output is not added to the stream at once: the next layer norm adds it in the pass in which it reads the
stream anyway. So a block is: norm (with the pending sum), qkv, norm and rotation of q and k in place, attention, proj;
norm (with the pending sum), fc1, GELU, fc2. Quantization happens inside norm and GELU.

Legend: M tokens, D width, B sequences of N tokens, H heads, E head width, P tokens of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggt_quant.inference.attention.base import Attend
from vggt_quant.inference.fast.linears import multiplier
from vggt_quant.kernels import rows
from vggt_quant.kernels.operands import Kind, Operand
from vggt_quant.kernels.rotary import HeadNorms, norm_rotate
from vggt_quant.kernels.rows import Update
from vggt_quant.model.layers import Block


class Stream:
    """The residual stream [M, D] and what is still to be added to it."""

    def __init__(self, x_MD: Tensor) -> None:
        self.x_MD = x_MD
        self.pending: Update | None = None

    def norm(self, norm: nn.LayerNorm, kind: Kind) -> Operand:
        """Add what is pending, and give the normalised tokens."""
        update, self.pending = self.pending, None
        return rows.layer_norm(self.x_MD, norm.weight, norm.bias, norm.eps, kind, update)

    def add(self, change_MD: Tensor, gamma_D: Tensor) -> None:
        """Let the next reader add change * gamma."""
        self.settle()
        self.pending = Update(change_MK=change_MD, gamma_K=gamma_D)

    def settle(self) -> Tensor:
        """The stream with nothing pending."""
        if self.pending is not None:
            self.x_MD.addcmul_(self.pending.change_MK.to(self.x_MD.dtype), self.pending.gamma_K.to(self.x_MD.dtype))
            self.pending = None
        return self.x_MD


class FastBlock:
    """A `Block` of the model, run on the kernels."""

    def __init__(self, block: Block, attend: Attend) -> None:
        attention = block.attn
        self.block, self.attend, self.num_heads = block, attend, attention.num_heads
        self.qkv, self.proj = multiplier(attention.qkv), multiplier(attention.proj)
        self.fc1, self.fc2 = multiplier(block.mlp.fc1), multiplier(block.mlp.fc2)
        self.norms = None
        if isinstance(attention.q_norm, nn.LayerNorm):
            q, k = attention.q_norm, attention.k_norm
            assert isinstance(k, nn.LayerNorm) and q.eps == k.eps, (q, k)
            self.norms = HeadNorms(
                q_weight_E=q.weight, q_bias_E=q.bias, k_weight_E=k.weight, k_bias_E=k.bias, eps=q.eps
            )

    def run(self, stream: Stream, sequences: int, rotary_2PE: Tensor | None = None) -> None:
        """Pass the stream's tokens, `sequences` equal runs of them that attend among themselves."""
        qkv = self.qkv.multiply(stream.norm(self.block.norm1, self.qkv.operand))
        if self.norms is not None:
            assert rotary_2PE is not None
            norm_rotate(qkv, self.norms, rotary_2PE, self.num_heads)
        attended = self.attend(qkv, sequences, self.num_heads)
        del qkv
        stream.add(self.proj.multiply(rows.quantize(attended, self.proj.operand)), self.block.ls1.gamma)
        del attended
        hidden = self.fc1.multiply(stream.norm(self.block.norm2, self.fc1.operand))
        stream.add(self.fc2.multiply(rows.gelu(hidden, self.fc2.operand)), self.block.ls2.gamma)


def stream_of(tokens: Tensor) -> Stream:
    """A stream over a copy of tokens [..., D]."""
    return Stream(tokens.reshape(-1, tokens.shape[-1]).to(torch.bfloat16, copy=True))
