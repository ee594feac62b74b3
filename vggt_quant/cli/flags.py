"""What several commands of `vggt-quant` share: flags with their help, and how their values are read."""

import argparse
from argparse import ArgumentParser
from pathlib import Path

DEFAULT_MODEL = "facebook/VGGT-1B"
MODEL = (
    "a hub id, a weight file or folder, model.json of `vggt-quant model`, "
    "tiny (small and trained, in this package), tiny-outliers (its twin with heavy-tailed activations), "
    "or small-random, nano-random, vggt-1b-random (seeded random weights)"
)
FOLDER = (
    "a folder of photos, a scene with ground truth (ETH3D's or 7-Scenes' layout), a folder of such scenes, "
    "or `drawn` for rooms that the project draws itself"
)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Whole numbers from 1 separated by commas."""
    return [positive(part.strip()) for part in text.split(",")]


def counts_or_none(text: str) -> list[int]:
    """Likewise; an empty list for `none`."""
    return [] if text == "none" else counts(text)


def height_and_width(text: str) -> tuple[int, int]:
    """`350x518` as (350, 518)."""
    height, x, width = text.partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 350x518")
    return positive(height), positive(width)


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name for name in text.split(",") if name]


def step(command: ArgumentParser) -> None:
    """Make the command a step: its `run` returns one result, which is written to `--out`, and `--status` supervises it.

    A command that is a step in some uses only replaces the default of `is_step`, a function of the parsed flags.
    """
    command.add_argument("--out", type=Path, help="the result file, JSON (default: print it)")
    command.add_argument(
        "--status", type=Path, help="record here how the job ended, and run it in a process of its own"
    )
    command.add_argument("--memory-limit-mb", type=positive, help="end the job when it needs more (10^6 bytes)")
    command.set_defaults(is_step=lambda args: True)


def scenes(command: ArgumentParser) -> None:
    """Which photos to prepare, and how."""
    command.add_argument("--image-folder", default="drawn", help=FOLDER + " (default: %(default)s)")
    limits(command)
    command.add_argument("--image-mode", choices=("crop", "pad"), default="crop", help="VGGT's preprocessing mode")
    command.add_argument("--model", help="its image size is taken (default: VGGT-1B's 518 pixels); " + MODEL)


def limits(command: ArgumentParser) -> None:
    """How many photos and scenes to take."""
    command.add_argument(
        "--max-images", type=positive, help="take at most so many photos of a scene (default: all; of drawn ones 4)"
    )
    text = "take at most so many scenes (default: all; of drawn ones 16, for calibration 8)"
    command.add_argument("--max-scenes", type=positive, help=text)


def model(command: ArgumentParser) -> None:
    """The original model."""
    command.add_argument("--model", default=DEFAULT_MODEL, help=MODEL)


def images(command: ArgumentParser) -> None:
    """Photos, prepared or not."""
    text = "images.json of `vggt-quant images`, or " + FOLDER + " (default: %(default)s)"
    command.add_argument("--images", default="drawn", help=text)


def packed(command: ArgumentParser, *, required: bool = True) -> None:
    """A packed checkpoint."""
    text = "quantize.json of `vggt-quant quantize`, or a packed .safetensors checkpoint"
    command.add_argument("--packed", type=Path, required=required, help=text)


def variant(command: ArgumentParser, *, required: bool = True) -> None:
    """One variant, and the file that defines it."""
    command.add_argument("--variant", required=required, help="its name, e.g. int4_group128")
    variants_file(command)


def variants_file(command: ArgumentParser) -> None:
    """The file that defines variants."""
    command.add_argument("--variants", type=Path, help="a variants.yaml of your own (default: the package's)")


def cache(command: ArgumentParser) -> None:
    """Where checkpoints and fp32 outputs are kept."""
    text = "folder that keeps checkpoints and fp32 outputs between runs; may be a network volume (default: cache)"
    command.add_argument("--cache", type=Path, default=Path("cache"), help=text)


def device(command: ArgumentParser) -> None:
    """CPU or GPU."""
    text = "where to run (default: auto = the GPU if there is one)"
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)
