"""cuDNN's attention through PyTorch, on Hopper GPUs and newer."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vggt_quant.inference.attention import torch_sdpa
from vggt_quant.inference.attention.base import Backend


def attend(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """[M, 3D] to [M, D]."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch_sdpa.attend(qkv_M3D, sequences, num_heads)


def unsupported(device: torch.device, head_width: int) -> str | None:
    """Why it cannot run there, or None."""
    if device.type != "cuda":
        return "it is for CUDA GPUs"
    if (major := torch.cuda.get_device_capability(device)[0]) < 9:
        return f"the GPU has compute capability {major}, less than Hopper's 9"
    if head_width % 8 or head_width > 128:
        return f"heads are {head_width} wide, not a multiple of 8 up to 128"
    return None


BACKEND = Backend(title="cudnn", attend=attend, unsupported=unsupported, rank=2)
