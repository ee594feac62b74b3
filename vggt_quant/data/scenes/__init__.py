"""Layouts of scene folders with ground truth, one in each file here, found by its name; importing this needs no torch.

A file defines `LAYOUT`. Its name is what result files call the layout. A folder of no layout is plain photos.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggt_quant.data.truth.frames import Truth
    from vggt_quant.data.truth.placement import Placement

PLAIN = "photos"
"""What result files call a folder of photos without ground truth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a folder of photos with ground truth is recognized and read.

    Attributes:
        detect: whether a scene's folder has this layout; looks at names only.
        read_truth: the ground truth of photos, from the scene's folder, their paths, and where each lies in the image
            that the model sees; None, with a warning, where there is none. A file that does not fit is a ValueError
            that names it, the line and the cure.
        photo_folders: where the photos lie below the scene's folder; the first that holds a usable one counts.
        not_photos: patterns of files that are named like photos but are not; they are skipped without a message.
    """

    detect: Callable[[Path], bool]
    read_truth: Callable[[Path, Sequence[Path], Sequence[Placement]], Truth | None]
    photo_folders: tuple[str, ...] = (".",)
    not_photos: tuple[str, ...] = ()


def names() -> list[str]:
    """Every layout."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def get(name: str) -> Layout:
    """A layout by its name."""
    layout: Layout = importlib.import_module(f"{__name__}.{name}").LAYOUT
    return layout


def detect(folder: Path) -> dict[str, Layout]:
    """The layouts that a scene's folder has; one as a rule, none for plain photos."""
    return {name: get(name) for name in names() if get(name).detect(folder)}
