"""Check the name of a model before any step starts. Imports no torch; a step's own `resolve` finds the weights."""

import re
from pathlib import Path

from vggt_quant.results.validation import near

BUNDLED = ("tiny", "tiny-outliers")
"""Models in this package."""
RANDOM = ("vggt-1b-random", "small-random", "tiny-random", "nano-random")
"""Seeded random weights; `:7` behind it is the seed."""
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")


def expect_model(name: str) -> None:
    """Refuse what is no model's name, no file or folder, and does not look like a hub model's `owner/name`.

    Raises:
        ValueError: It is none of them.
    """
    is_random = re.fullmatch(f"({'|'.join(RANDOM)})(:[0-9]+)?", name)
    if name in BUNDLED or is_random or _looks_like_hub(name) or (name and Path(name).expanduser().exists()):
        return
    known = (*BUNDLED, *RANDOM)
    raise ValueError(
        f"There is no model {name!r}{near(name, known)}; --model takes a hub model such as facebook/VGGT-1B, a weight "
        f"file or folder that exists, or one of {', '.join(known)}."
    )


def _looks_like_hub(name: str) -> bool:
    is_path = name.startswith((".", "~")) or Path(name).suffix in WEIGHT_FILES
    return not is_path and re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) is not None
