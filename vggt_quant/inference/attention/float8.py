"""Our own kernel in float8, for Hopper GPUs: see `kernels.attention_fp8`."""

import torch
from torch import Tensor

from vggt_quant.inference.attention.base import Backend


def attend(qkv_M3D: Tensor, sequences: int, num_heads: int) -> Tensor:
    """One sequence, [M, 3D] to [M, D]."""
    # Here and not above: backends are read where there may be no Triton.
    from vggt_quant.kernels import attention_fp8, attention_fp8_pack

    return attention_fp8.attend(attention_fp8_pack.pack(qkv_M3D, num_heads))


def unsupported(device: torch.device, head_width: int) -> str | None:
    """Why it cannot run there, or None; a CPU interprets it."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return f"{torch.cuda.get_device_name(device)} is no Hopper GPU"
    return None if head_width == 64 else f"heads are {head_width} wide, not 64"


BACKEND = Backend(
    title="triton float8", attend=attend, unsupported=unsupported, scores="float8", values="float8", least_db=25
)
