"""PyTorch's scaled dot-product attention, on any device: the fallback."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vggt_quant.inference.attention.base import Backend, heads


def attend(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """[M, 3D] to [M, D]."""
    q, k, v = heads(qkv_M3D, sequences, num_heads)
    out_BHNE = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out_BHNE.transpose(1, 2).reshape(len(qkv_M3D), -1)


def unsupported(device: torch.device, head_width: int) -> None:
    """It runs everywhere."""
    return None


BACKEND = Backend(title="torch sdpa", attend=attend, unsupported=unsupported, rank=3)
