"""VGGT itself, without any quantization."""

from vggt_quant.model.config import NAMED, VGGTConfig
from vggt_quant.model.vggt import VGGT

__all__ = ["NAMED", "VGGT", "VGGTConfig"]
