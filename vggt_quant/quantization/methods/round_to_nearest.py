"""Round to nearest (RTN): each weight takes the nearest integer on a grid that spans its row or group.

The plainest post-training quantization, and the yardstick for all others (Krishnamoorthi 2018, arXiv:1806.08342). It
needs no calibration and works layer by layer, so memory never exceeds the model plus one layer.
"""

from dataclasses import dataclass

from torch import nn

from vggt_quant.quantization import formats
from vggt_quant.quantization import grid as grids
from vggt_quant.quantization.formats.base import replace
from vggt_quant.results import decibels
from vggt_quant.runtime.progress import track

FORMATS = (
    *("w8a16", "w8a8", "w4a16", "w4a8"),
    *("torchao_int8", "torchao_int4", "bitsandbytes_int8", "humming_int8", "humming_int4"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What decides the grid."""

    format: str
    """One of `FORMATS`."""
    group_size: int | None = None
    """Columns that share a scale; None = one scale per output channel (8 bits only)."""
    zero_points: bool = False
    """Asymmetric weights: each scale gets a zero point."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.format not in FORMATS:
            raise ValueError(f"format is {self.format!r}; round_to_nearest writes {', '.join(FORMATS)}.")
        if (formats.layer(self.format).bits == 4) != (self.group_size is not None):
            raise ValueError(f"group_size is {self.group_size}; 4-bit formats need one (e.g. 128), others none.")
        if self.group_size is not None and (type(self.group_size) is not int or self.group_size < 1):
            raise ValueError(f"group_size is {self.group_size!r}; give a positive whole number, e.g. 128.")
        if not isinstance(self.zero_points, bool):
            raise ValueError(f"zero_points is {self.zero_points!r}; give true or false.")


def quantize(model: nn.Module, layers: list[str], config: Config, calibration: None) -> dict[str, float]:
    """Replace the named Linears in place, one after the other."""
    packed = formats.layer(config.format)
    sqnr_db = {}
    for name in track(layers, "round to nearest"):
        linear = model.get_submodule(name)
        weight = linear.weight.detach()
        try:
            grid = grids.fit(weight, bits=packed.bits, group_size=config.group_size, zero_points=config.zero_points)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        integers = grids.to_integers(weight, grid)
        bias = None if linear.bias is None else linear.bias.detach()
        replace(model, name, packed.from_integers(integers, grid, bias))
        sqnr_db[name] = decibels.sqnr_db(weight, grids.to_weights(integers, grid))
    return sqnr_db
