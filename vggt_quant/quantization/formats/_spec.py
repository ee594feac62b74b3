"""The declaration (`SPEC`) of a format's file: literals, so that `formats.spec` reads it without importing torch."""

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from vggt_quant.results.validation import Definition, build


class FormatSpec(Definition, frozen=True, kw_only=True):
    """The facts of a format that decide which settings fit it and where it runs."""

    bits: Literal[4, 8]
    """Bits of a stored weight."""
    integers: bool = True
    """Weights are integers on a `grid.Grid`, which a method may choose; else values that `from_weight` alone finds."""
    grouped: bool = False
    """Columns share scales in groups, so a `group_size` is needed; else there is one scale per output channel."""
    group_sizes: tuple[int, ...] = ()
    """The only group sizes there are; empty: any."""
    zero_points: bool = False
    """Weights may have zero points."""
    devices: Annotated[tuple[Literal["cpu", "cuda"], ...], Meta(min_length=1)] = ("cpu", "cuda")
    """The device types with a kernel for it."""
    method: str | None = None
    """The only method that writes it; None: any that its values fit."""
    distribution: str | None = None
    """The installed library that multiplies it, whose version results record; None: PyTorch or our own kernels."""
    examples: tuple[dict[str, Any], ...] = ({},)
    """Settings, besides `format`, that the conformance tests try."""
    least_db: float = 18
    """Signal-to-noise ratio that it keeps of a product of normal data; the conformance tests hold it to that."""
    kernel_error: Annotated[float, Meta(ge=0)] = 0
    """Share of a product that roundings inside its kernel may change; the conformance tests allow no more."""

    def check(self, name: str, group_size: int | None, zero_points: bool) -> None:
        """Refuse settings that the format `name` does not have.

        Raises:
            ValueError: One is missing, or is not the format's.
        """
        if self.grouped and group_size is None:
            raise ValueError(f"{name} needs a group_size, e.g. {(self.group_sizes or (128,))[0]}.")
        if not self.grouped and group_size is not None:
            raise ValueError(f"group_size is {group_size}, but {name} has no groups to choose; leave it out.")
        if self.group_sizes and group_size not in self.group_sizes:
            sizes = ", ".join(map(str, self.group_sizes))
            raise ValueError(f"group_size is {group_size}, but {name} has groups of {sizes} only.")
        if zero_points and not self.zero_points:
            raise ValueError(f"{name} multiplies no weights with zero points; leave zero_points out.")


def read_spec(file: Path) -> FormatSpec:
    """The `SPEC = FormatSpec(...)` of a format's file.

    Raises:
        ValueError: There is none, it is not written in literals, or it does not fit.
    """
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == "SPEC":
            try:
                facts = {word.arg: ast.literal_eval(word.value) for word in node.value.keywords}
            except ValueError as error:
                raise ValueError(
                    f"{file}: SPEC should be written in literals, as it is read without running."
                ) from error
            return build(FormatSpec, facts, f"{file}: SPEC")
    raise ValueError(f"{file} declares no SPEC = FormatSpec(...); every format does.")
