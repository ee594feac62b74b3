"""SageAttention 1, a library: scores in int8, values in float16, by Triton."""

import importlib.util

import torch
from torch import Tensor

from vggt_quant.inference.attention.base import Backend, heads


def attend(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """[M, 3D] to [M, D]."""
    from sageattention import sageattn

    # It subtracts the keys' mean in place; no later code reads the keys.
    attended: Tensor = sageattn(*heads(qkv_M3D, sequences, num_heads), tensor_layout="NHD")
    return attended.reshape(len(qkv_M3D), -1)


def unsupported(device: torch.device, head_width: int) -> str | None:
    """Why it cannot run there, or None."""
    if not importlib.util.find_spec("sageattention"):
        return "it is not installed"
    return None if head_width == 64 else f"heads are {head_width} wide, not 64"


BACKEND = Backend(
    title="sageattention",
    attend=attend,
    unsupported=unsupported,
    scores="int8",
    values="float16",
    distribution="sageattention",
    least_db=25,
)
