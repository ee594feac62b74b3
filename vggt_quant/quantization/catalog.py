"""Check the settings of variants against what their methods and formats declare. Imports no torch."""

from pathlib import Path

from vggt_quant import variants
from vggt_quant.quantization import methods
from vggt_quant.variants import Variant


def load_variants(path: Path | str | None = None) -> dict[str, Variant]:
    """All variants of a YAML file, by name; without a path, those that came with the package.

    Raises:
        ValueError: The file or an entry is not sound, or a method, format or setting does not exist or does not fit.
    """
    loaded = variants.load_variants(path)
    for variant in loaded.values():
        _check(variant, path)
    return loaded


def find_variant(name: str, path: Path | str | None = None) -> Variant:
    """One variant by name; only its own settings are checked.

    Raises:
        ValueError: The file is not sound, no variant has that name, or its method, format or a setting does not exist.
    """
    variant = variants.find_variant(name, path)
    _check(variant, path)
    return variant


def _check(variant: Variant, path: Path | str | None) -> None:
    methods.config_of(variant, f"{variants.variants_path(path)}: variant {variant.name}")
