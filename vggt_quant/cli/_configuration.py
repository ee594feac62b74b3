"""The workflow's config.yaml as `compare` writes it, and whether a folder's results were made by the same one."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from vggt_quant.cli._model_names import BUNDLED, expect_model
from vggt_quant.cli._packed import refuse_packed
from vggt_quant.quantization.catalog import load_variants
from vggt_quant.variants import expect_variants

OWN_NAMES = ("drawn", *BUNDLED)
"""Words that mean the same in a folder that holds a file of that name."""


def configuration(args: Namespace) -> dict[str, Any]:
    """The workflow's config.yaml; folders and files as absolute paths, since the workflow runs in the output folder."""
    variants = load_variants(args.variants_file)
    expect_variants(args.variants or [], variants)
    expect_model(args.model)
    refuse_packed(args.model)
    _expect_folder("--images", args.images, "drawn")
    # Rooms say nothing about photos, and drawing them at VGGT-1B's 518 pixels takes a minute.
    calibration = args.calibration_folder or ("drawn" if args.images == "drawn" else "none")
    _expect_folder("--calibration-folder", calibration, "drawn", "none")
    return {
        "model": _absolute(args.model),
        "images": {
            "folder": _absolute(args.images),
            "max_scenes": args.max_scenes,
            "max_images": args.max_images,
            "mode": args.image_mode,
        },
        "calibration": {
            "folder": None if calibration == "none" else _absolute(calibration),
        },
        "device": args.device,
        "variants": args.variants,
        "variants_file": str(args.variants_file.absolute()) if args.variants_file else None,
        "cache_dir": str(args.cache.absolute()) if args.cache else "cache",
        "results_dir": ".",
    }


def expect_same_comparison(settings: dict[str, Any], folder: Path) -> None:
    """Keep results from being replaced by those of another model, other photos or another calibration.

    Other variants, another device or profile only add results or repeat some. A folder in which nothing was finished
    has nothing to lose.

    Raises:
        ValueError: Results of another comparison lie in `folder`, or a config.yaml that is not one of `compare`.
    """
    file = folder / "config.yaml"
    if not file.exists():
        return
    earlier, now = _read_decisive(file), _decisive(settings)
    differences = [f"{flag} {earlier[flag]}, not {now[flag]}" for flag in now if earlier[flag] != now[flag]]
    has_results = any(any(folder.glob(f"{stage}/*.json")) for stage in ("quantize", "accuracy", "speed"))
    if differences and has_results:
        cure = "choose another --output, or delete that folder"
        raise ValueError(f"{folder} holds results for {' and '.join(differences)}: {cure}.")


def expect_own_results(folder: Path) -> None:
    """Refuse results without the records by which the workflow tells whether they are up to date, as in a copy.

    Raises:
        ValueError: There are such results in `folder`.
    """
    if (folder / "model.json").exists() and not (folder / ".snakemake" / "metadata").is_dir():
        raise ValueError(
            f"{folder} holds results that were not made from this working directory, so nobody can tell what they "
            "depend on: choose another --output, or delete them; the cache may stay."
        )


def _read_decisive(file: Path) -> dict[str, str]:
    try:
        return _decisive(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not one that compare wrote: choose another --output, or delete it.") from error


def _decisive(settings: dict[str, Any]) -> dict[str, str]:
    """What makes it this comparison and no other, by flag.

    Raises:
        AttributeError, KeyError, TypeError: `settings` are no configuration of `compare`, of no version.
    """
    images = settings["images"]
    values = {
        "--model": settings["model"],
        "--images": images["folder"],
        "--max-scenes": images.get("max_scenes"),
        "--max-images": images.get("max_images"),
        "--image-mode": images.get("mode", "crop"),
        "--calibration-folder": settings.get("calibration", {}).get("folder"),
    }
    return {flag: "none" if value is None else str(value) for flag, value in values.items()}


def _expect_folder(flag: str, folder: str, *words: str) -> None:
    if folder not in words and not Path(folder).is_dir():
        raise ValueError(
            f"There is no folder {folder}; {flag} takes a folder of photos or scenes, or {' or '.join(words)}."
        )
    if folder not in words and not _may_hold_photos(Path(folder)):
        raise ValueError(
            f"There is no photo in {folder} or below it; {flag} takes a folder of .jpg or .png photos or of scenes, "
            f"or {' or '.join(words)}."
        )


def _may_hold_photos(folder: Path) -> bool:
    """Whether a file is named like a photo, or a link leads elsewhere; the step that reads photos looks closer."""
    from vggt_quant.data.photo_files import photo_extensions

    extensions = photo_extensions()
    for place, folders, files in os.walk(folder):
        if any(Path(name).suffix.lower() in extensions for name in files):
            return True
        if any(Path(place, name).is_symlink() for name in folders):
            return True
    return False


def _absolute(name: str) -> str:
    """A path that exists as an absolute one; a hub id as it is, and `drawn` and the package's models always."""
    return name if name in OWN_NAMES or not Path(name).exists() else str(Path(name).absolute())
