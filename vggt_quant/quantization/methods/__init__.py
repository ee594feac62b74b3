"""Quantization methods, one per file, found by file name: algorithms that decide the values of packed weights.

Every method file has the two members of `Method`: `Config`, its settings, and `quantize`. The settings are read without
torch, so a method imports torch, and whatever imports torch, inside its functions. Methods are needed only to make a
checkpoint. A method never imports another one; shared code is in this file. The driver (`quantization.quantize`)
chooses the layers, shows progress and computes the signal-to-noise ratio of each packed weight.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from msgspec import Meta, structs

from vggt_quant.quantization import formats
from vggt_quant.results.validation import Definition, build, near
from vggt_quant.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vggt_quant.quantization.formats.base import PackedBase

    Replace = Callable[[str, PackedBase], None]
    """Puts a packed layer where the Linear of that name is."""
    Calibration = Iterable[Tensor]
    """The calibration scenes, each images [S, 3, H, W] for the model; may be iterated again."""


class MethodConfig(Definition, frozen=True, kw_only=True):
    """The settings of a method, one field each, and what else there is to know of it before it runs."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    """The device types on which it can quantize."""

    @property
    def packs(self) -> str | None:
        """The format that it writes; None: it leaves every layer as it is."""
        return None


class FormatConfig(MethodConfig, frozen=True, kw_only=True):
    """Settings of a method that writes a format which the user chooses."""

    integers_only: ClassVar[bool] = True
    """It decides integers, so it writes only formats of integers."""

    format: str
    """How the values are stored and multiplied: a file in `vggt_quant/quantization/formats/`."""
    group_size: Annotated[int, Meta(ge=1)] | None = None
    """Columns that share a scale, for formats with groups; a narrower last group has a separate scale."""
    zero_points: bool = False
    """Asymmetric weights: each scale gets a zero point, in `w8a8` for the activations, too."""

    def __post_init__(self) -> None:
        """Refuse a format that does not exist, and settings that it does not have."""
        super().__post_init__()
        method, spec = type(self).__module__.rpartition(".")[2], formats.spec(self.format)
        if spec.method not in (None, method) or (self.integers_only and not spec.integers):
            by = f"the method {spec.method}" if spec.method else "rounding to nearest"
            raise ValueError(f"format is {self.format!r}, which is written by {by} only, not by {method}.")
        spec.check(self.format, self.group_size, self.zero_points)

    @property
    def packs(self) -> str | None:
        """The chosen format."""
        return self.format

    def grid(self) -> dict[str, Any]:
        """The settings of `grid.fit` and of a format's `from_weight`; nothing for a format that has none."""
        given = {"group_size": self.group_size, "zero_points": self.zero_points}
        return {name: value for name, value in given.items() if value}


class Method(Protocol):
    """What a method's file has."""

    Config: type[MethodConfig]

    def quantize(
        self, model: nn.Module, layers: list[str], config: Any, replace: Replace, calibration: Calibration | None
    ) -> None:
        """Quantize the named Linears of `model`.

        Args:
            model: Any module, in evaluation mode; without gradients.
            layers: Full names of plain `nn.Linear` layers, in the model's order; their weights are finite.
            config: The method's `Config`.
            replace: To be called once for each layer, as soon as its packed twin is made: the old weight is then free.
            calibration: Scenes to learn from, or None where there are none.

        Raises:
            ValueError: A layer that it cannot quantize, which the sentence names.
        """


def names() -> list[str]:
    """All methods, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Method:
    """The module of a method.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"There is no method {name!r}{near(name, names())}; there are {', '.join(names())}.")
    method: Method = importlib.import_module(f"{__name__}.{name}")
    return method


def config_of(variant: Variant, where: str | None = None) -> MethodConfig:
    """The settings of a variant's method, checked as far as that is possible without the model.

    Args:
        variant: Any variant.
        where: What it is called in messages, with its file if it has one; None: by its name.

    Raises:
        ValueError: A method, format or setting that does not exist, or settings that do not go together.
    """
    where = where or f"Variant {variant.name}"
    try:
        method = get(variant.method)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if variant.config and not structs.fields(method.Config):
        given = ", ".join(map(repr, variant.config))
        raise ValueError(f"{where}: the method {variant.method} has no settings, but config has {given}; leave it out.")
    return build(method.Config, variant.config, f"{where}: config")


def linear_of(model: nn.Module, name: str) -> nn.Linear:
    """One of the layers that a method was given."""
    from torch import nn

    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear), name
    return linear
