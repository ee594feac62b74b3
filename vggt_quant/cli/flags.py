"""Flags that several commands of `vggt-quant` share: their help, and how their values are read.

A flag means the same in every command: `--model` is the original model, `--images` the photos, `--cache` the folder
that is kept between runs, `--output` the product for a person, `--result` the JSON record for programs.
"""

import argparse
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, TypeAlias

from vggt_quant.data import scenes

FlagsOf: TypeAlias = ArgumentParser | argparse._ArgumentGroup
YAML = (".yaml", ".yml")
DEFAULT_MODEL = "facebook/VGGT-1B"
MODEL = (
    "the original model: a hub id, a weight file or folder, model.json of `vggt-quant model`, "
    "tiny (small and trained, in this package), tiny-outliers (the same with heavy-tailed activations), "
    "or small-random, nano-random, vggt-1b-random (seeded random weights)"
)
FOLDER = (
    f"a folder of photos, a scene with ground truth (layouts: {', '.join(scenes.names())}), a folder of such scenes, "
    "or `drawn` for rooms that the project draws itself"
)
HOW_TO_RUN = "the variant that says how to run the checkpoint (default: the one that its header names)"


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
    """Names separated by commas, without the spaces around them."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no variant; give some, such as bf16,int4_group128")
    if files := [name for name in found if name.endswith(YAML)]:
        raise argparse.ArgumentTypeError(f"{files[0]!r} is a file, not a name; give it as --variants-file {files[0]}")
    return found


def result_file(text: str) -> Path:
    """A file for a step's result."""
    if not text.endswith(".json"):
        cure = "; --output takes the checkpoint" if text.endswith(".safetensors") else ""
        raise argparse.ArgumentTypeError(f"{text!r} should end with .json, as a result is JSON{cure}")
    return Path(text)


def checkpoint_file(text: str) -> Path:
    """A file for a checkpoint."""
    if not text.endswith(".safetensors"):
        cure = "; --result takes the record in JSON" if text.endswith(".json") else ""
        raise argparse.ArgumentTypeError(f"{text!r} should end with .safetensors, as a checkpoint is one{cure}")
    return Path(text)


class Names(argparse.Action):
    """Several lists of names as one, each name once."""

    def __call__(self, parser: ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        """Keep the names."""
        setattr(namespace, self.dest, list(dict.fromkeys(name for some in values for name in some)))


def step(command: ArgumentParser) -> None:
    """Make the command a step: its `run` returns one result, which `--result` names; `--status` supervises the work.

    A command that is a step in some uses only replaces the default of `is_step`, a function of the parsed flags.
    """
    record = command.add_argument_group("the record, for programs")
    text = "write the result to this file (default: print it)"
    record.add_argument("--result", type=result_file, metavar="FILE.json", help=text)
    text = "run in a separate process, and write to this file how it ended"
    record.add_argument("--status", type=Path, metavar="FILE.json", help=text)
    text = "stop the process when it needs more memory than this (in units of 10^6 bytes)"
    record.add_argument("--memory-limit-mb", type=positive, metavar="MB", help=text)
    command.set_defaults(is_step=lambda args: True)


def model(command: ArgumentParser) -> None:
    """The original model."""
    command.add_argument("--model", default=DEFAULT_MODEL, help=MODEL + " (default: %(default)s)")


def folder(command: ArgumentParser) -> None:
    """Photos to be found and prepared."""
    command.add_argument("--images", metavar="FOLDER", default="drawn", help=FOLDER + " (default: %(default)s)")


def preparation(command: ArgumentParser) -> None:
    """How photos are prepared for a model."""
    limits(command)
    image_mode(command)
    text = "the model whose image size is taken (default: VGGT-1B's 518 pixels); " + MODEL
    command.add_argument("--model", help=text)


def limits(command: ArgumentParser) -> None:
    """How many photos and scenes to take."""
    text = "take at most this many photos of a scene (default: all; of drawn ones 4)"
    command.add_argument("--max-images", type=positive, metavar="N", help=text)
    text = "take at most this many scenes (default: all; of drawn ones 16, for calibration 8)"
    command.add_argument("--max-scenes", type=positive, metavar="N", help=text)


def image_mode(command: ArgumentParser) -> None:
    """VGGT's two ways to fit photos into its image size."""
    text = "how photos are fitted into the model's image size: cut, or with a white border (default: %(default)s)"
    command.add_argument("--image-mode", choices=("crop", "pad"), default="crop", help=text)


def images(command: ArgumentParser) -> None:
    """Photos, prepared or not."""
    text = "images.json of `vggt-quant images`, or " + FOLDER + " (default: %(default)s)"
    command.add_argument("--images", default="drawn", help=text)


def packed(command: ArgumentParser, *, required: bool = True) -> None:
    """A packed checkpoint."""
    text = "a packed .safetensors checkpoint, or the result of `vggt-quant quantize` about it"
    command.add_argument("--packed", type=Path, metavar="FILE", required=required, help=text)


def variant(command: ArgumentParser, text: str, *, required: bool = True) -> None:
    """One variant, and the file that defines it."""
    command.add_argument("--variant", required=required, metavar="NAME", help=text)
    variants_file(command)


def variants(command: FlagsOf, text: str, *, required: bool = False) -> None:
    """Several variants."""
    command.add_argument(
        "--variants", type=names, nargs="+", action=Names, required=required, metavar="NAMES", help=text
    )


def variants_file(command: ArgumentParser) -> None:
    """The file that defines variants."""
    text = "your own variants.yaml, the definitions of the variants (default: the package's)"
    command.add_argument("--variants-file", type=Path, metavar="FILE.yaml", help=text)


def cache(command: FlagsOf, default: str) -> None:
    """Where checkpoints and fp32 outputs are kept."""
    text = (
        f"folder that keeps checkpoints and fp32 outputs for later runs; may be a network volume (default: {default})"
    )
    command.add_argument("--cache", type=Path, metavar="FOLDER", help=text)


def device(command: ArgumentParser) -> None:
    """CPU or GPU."""
    text = "where to run (default: auto = the GPU if there is one)"
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)
