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
        methods.config_of(variant)
    return loaded
