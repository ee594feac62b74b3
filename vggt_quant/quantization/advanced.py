"""`quantize_model_advanced` and `AdvancedQuantConfig`, known from earlier scripts: wrappers of `quantize_model`."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vggt_quant.quantization.quantize import quantize_model
from vggt_quant.variants import Variant


@dataclass(frozen=True, kw_only=True, slots=True)
class AdvancedQuantConfig:
    """Which integers, in the words of earlier scripts."""

    quant_type: Literal["int8_symmetric", "int8_asymmetric", "int4_group"] = "int8_symmetric"
    bits: int | None = None
    """8 or 4; None takes what `quant_type` says, and anything else than that is refused."""
    group_size: int | None = None
    """Columns that share a scale; `int4_group` only, 128 unless given."""

    def __post_init__(self) -> None:
        """Refuse what cannot be packed."""
        bits = {"int8_symmetric": 8, "int8_asymmetric": 8, "int4_group": 4}
        if self.quant_type not in bits:
            raise ValueError(f"quant_type is {self.quant_type!r}; choose one of {', '.join(bits)}.")
        if self.bits not in (None, bits[self.quant_type]):
            raise ValueError(f"bits is {self.bits}; {self.quant_type} has {bits[self.quant_type]} bits.")
        if self.group_size is not None and self.quant_type != "int4_group":
            raise ValueError(f"group_size is {self.group_size}; {self.quant_type} has one scale per output channel.")

    def variant(self) -> Variant:
        """The same as a variant."""
        if self.quant_type == "int4_group":
            config = {"format": "w4a16", "group_size": 128 if self.group_size is None else self.group_size}
        else:
            config = {"format": "w8a16", "zero_points": self.quant_type == "int8_asymmetric"}
        return Variant(name=self.quant_type, method="round_to_nearest", config=config)


def quantize_model_advanced(
    model: nn.Module, config: AdvancedQuantConfig, *, dtype: torch.dtype | Literal["keep"] | None = None
) -> nn.Module:
    """`quantize_model` by an `AdvancedQuantConfig`; in place."""
    return quantize_model(model, config.variant(), dtype=dtype)
