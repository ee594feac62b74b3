"""The base of every result: frozen records whose types msgspec checks when they are read."""

import math

import msgspec

Measured = float | None
"""A figure; null where it could not be had or is infinite."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A result or a part of one. Its fields are its schema: a missing, unknown or mistyped one is refused."""


def finite(value: float) -> Measured:
    """`value`, or None where JSON has no number for it (NaN, infinity)."""
    return float(value) if math.isfinite(value) else None
