"""Every flag of `vggt-quant`, with its help; no behaviour."""

import argparse
from pathlib import Path

DEFAULT_MODEL = "facebook/VGGT-1B"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="vggt-quant",
        description="Quantize VGGT by every method that matters, and measure each: size, speed, memory, deviation.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _compare(commands)
    _doctor(commands)
    _images(commands)
    _calibration(commands)
    _model(commands)
    _reference(commands)
    _quantize(commands)
    _accuracy(commands)
    _speed(commands)
    _report(commands)
    _keys(commands)
    _fetch(commands)
    return top


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


def _compare(commands: argparse._SubParsersAction) -> None:
    text = "photos and a model in, the comparison of all methods out: the whole workflow in one command"
    command = commands.add_parser("compare", help=text, description=text)
    command.add_argument("--model-name", default=DEFAULT_MODEL, help=_MODEL + " (default: %(default)s)")
    command.add_argument("--image-folder", default="drawn", help=_FOLDER + " (default: %(default)s)")
    _limits(command)
    command.add_argument(
        "--calibration-folder",
        help="scenes for methods that calibrate, likewise, or none (default: for drawn rooms 8 others, else none)",
    )
    command.add_argument(
        "--output-dir", type=Path, default=Path("results"), help="where the report goes (default: results)"
    )
    command.add_argument(
        "--methods", type=names, nargs="+", help="variants to compare, e.g. int8_symmetric,int4_group64"
    )
    command.add_argument("--cache-dir", type=Path, help="where checkpoints are kept (default: OUTPUT_DIR/cache)")
    command.add_argument("--variants", type=Path, help="a variants.yaml of your own (default: the package's)")
    command.add_argument("--image-mode", choices=("crop", "pad"), default="crop", help="VGGT's preprocessing mode")
    text = "who runs the jobs, and how: default, runpod, slurm, or the folder of a Snakemake profile"
    command.add_argument(
        "--workflow-profile", metavar="NAME_OR_FOLDER", help=text + " (default: $VGGT_QUANT_PROFILE, else default)"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    _device(command)


def _doctor(commands: argparse._SubParsersAction) -> None:
    text = "what this machine can run, and with which kernels, on one screen"
    commands.add_parser("doctor", help=text, description=text)


def _images(commands: argparse._SubParsersAction) -> None:
    text = "find the photos of a folder, say how many and where, and preprocess them as VGGT does"
    _scenes(_stage(commands, "images", text))


def _calibration(commands: argparse._SubParsersAction) -> None:
    text = "find and preprocess the scenes for methods that calibrate; refuse photos that are compared on"
    command = _stage(commands, "calibration", text)
    command.add_argument("--images", type=Path, required=True, help="images.json of `vggt-quant images`")
    _scenes(command)


def _model(commands: argparse._SubParsersAction) -> None:
    text = "find (and if need be download) a model's weights and identify them"
    command = _stage(commands, "model", text)
    command.add_argument("--model", default=DEFAULT_MODEL, help=_MODEL)


def _reference(commands: argparse._SubParsersAction) -> None:
    command = _stage(commands, "reference", "run the original model in float32 and keep its outputs")
    _inputs(command)
    _cache(command)
    _device(command)


def _quantize(commands: argparse._SubParsersAction) -> None:
    command = _stage(commands, "quantize", "make the packed checkpoint of a variant")
    command.add_argument("--model", default=DEFAULT_MODEL, help=_MODEL)
    _variant(command)
    _cache(command)
    _device(command)


def _accuracy(commands: argparse._SubParsersAction) -> None:
    command = _stage(commands, "accuracy", "measure how far a packed checkpoint is from fp32 on the same photos")
    _inputs(command)
    command.add_argument(
        "--reference", type=Path, help="reference.json of `vggt-quant reference` (default: make it now)"
    )
    _packed(command)
    _variant(command, required=False)
    _cache(command)
    _device(command)


def _speed(commands: argparse._SubParsersAction) -> None:
    text = "measure the time and memory of a packed checkpoint's forward pass; without --packed, of a table of variants"
    command = _stage(commands, "speed", text)
    command.add_argument("--model", help="for the table (a checkpoint knows its model): " + _MODEL)
    _photos(command)
    _packed(command, required=False)
    _variant(command, required=False)
    _device(command)
    text = "time so many images at a time, e.g. 1,5,20 (default: all photos at once; for the table 1,2,5,10,20,50,100)"
    command.add_argument("--num-images", type=counts, help=text)
    command.add_argument("--repeats", type=positive, help="timed passes at each of them (default: for three seconds)")
    command.add_argument("--reference", type=Path, help="reference.json whose outputs the timed ones are held against")
    text = "GiB, e.g. 8,16,24: also run the number of images that just fits there, where the GPU is as large"
    command.add_argument("--fill-memory", type=counts, default=[], help=text)
    table = command.add_argument_group("the table (without --packed)")
    table.add_argument("--output-dir", type=Path, help="where speed_table.json, .txt and .png and all results go")
    table.add_argument("--methods", type=names, nargs="+", help="variants (default: those of `compare`)")
    table.add_argument("--random-weights", action="store_true", help="seeded random weights in the sizes of --model")
    table.add_argument(
        "--image-size", type=height_and_width, default=(350, 518), help="HEIGHTxWIDTH (default: 350x518)"
    )
    text = "measure nothing: draw the table again from all results in this folder, of whatever machine"
    table.add_argument("--redraw", type=Path, metavar="OUTPUT_DIR", help=text)
    text = "which of --num-images are also held against strict fp32, output by output, or none (default: 1,5)"
    table.add_argument("--compare-at", type=counts_or_none, help=text)
    table.add_argument("--cache", type=Path, help="keeps checkpoints and fp32 outputs (default: OUTPUT_DIR/cache)")


def _report(commands: argparse._SubParsersAction) -> None:
    text = "gather the results into comparison_report.json, comparison_summary.txt and comparison_plots.png"
    command = commands.add_parser("report", help=text, description=text)
    command.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    command.add_argument("--logs", type=Path, default=Path("logs"), help="folder of the logs and status files")
    command.add_argument("--calibration", type=Path, help="calibration.json, if there are scenes to calibrate with")
    command.add_argument("--methods", type=names, nargs="+", required=True, help="variants, in the order of the report")
    command.add_argument("--output-dir", type=Path, help="where the three files go (default: the results folder)")
    command.add_argument("--partial", action="store_true", help="some results are missing: mark the report as partial")


def _keys(commands: argparse._SubParsersAction) -> None:
    text = "print, as JSON, what each stage of each variant depends on (the workflow asks this)"
    command = commands.add_parser("keys", help=text, description=text)
    command.add_argument("--variants", type=Path, help="a variants.yaml (default: the package's)")
    text = "other machines run the jobs, so `--device cuda` needs no GPU here"
    command.add_argument("--elsewhere", action="store_true", help=text)
    _device(command)


def _fetch(commands: argparse._SubParsersAction) -> None:
    text = "put an ETH3D scene or a model's weights, checked, into a folder; a broken call goes on where it stopped"
    command = commands.add_parser("fetch", help=text, description=text)
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT", help="what to fetch")
    text = "a training scene of ETH3D with its cameras, depth and masks: TO/SCENE"
    scene = kinds.add_parser("eth3d", help=text, description=text)
    scene.add_argument("scene", metavar="SCENE", help="for example courtyard; a wrong name lists all")
    scene.add_argument("--to", type=Path, required=True, help="folder that gets the scene's folder")
    scene.add_argument("--keep-archives", action="store_true", help="keep the .7z files there too")
    text = "a hub model's config.json and weights as plain files: TO/NAME, which every --model accepts"
    model = kinds.add_parser("model", help=text, description=text)
    model.add_argument("repo", metavar="OWNER/NAME", help="for example " + DEFAULT_MODEL)
    model.add_argument("--to", type=Path, required=True, help="folder that gets the model's folder")
    model.add_argument("--revision", default="main", help="branch, tag or commit (default: %(default)s)")


def _stage(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--out", type=Path, help="the result file, JSON (default: print it)")
    command.add_argument(
        "--status", type=Path, help="record here how the job ended, and run it in a process of its own"
    )
    command.add_argument("--memory-limit-mb", type=positive, help="end the job when it needs more (10^6 bytes)")
    return command


def _scenes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image-folder", default="drawn", help=_FOLDER + " (default: %(default)s)")
    _limits(command)
    command.add_argument("--image-mode", choices=("crop", "pad"), default="crop", help="VGGT's preprocessing mode")
    command.add_argument("--model", help="its image size is taken (default: VGGT-1B's 518 pixels); " + _MODEL)


def _limits(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-images", type=positive, help="take at most so many photos of a scene (default: all; of drawn ones 4)"
    )
    text = "take at most so many scenes (default: all; of drawn ones 16, for calibration 8)"
    command.add_argument("--max-scenes", type=positive, help=text)


def _inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default=DEFAULT_MODEL, help=_MODEL)
    _photos(command)


def _photos(command: argparse.ArgumentParser) -> None:
    text = "images.json of `vggt-quant images`, or " + _FOLDER + " (default: %(default)s)"
    command.add_argument("--images", default="drawn", help=text)


def _packed(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    text = "quantize.json of `vggt-quant quantize`, or a packed .safetensors checkpoint"
    command.add_argument("--packed", type=Path, required=required, help=text)


def _variant(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    command.add_argument("--variant", required=required, help="its name, e.g. int4_group128")
    command.add_argument("--variants", type=Path, help="a variants.yaml of your own (default: the package's)")


def _cache(command: argparse.ArgumentParser) -> None:
    text = "folder that keeps checkpoints and fp32 outputs between runs; may be a network volume (default: cache)"
    command.add_argument("--cache", type=Path, default=Path("cache"), help=text)


def _device(command: argparse.ArgumentParser) -> None:
    text = "where to run (default: auto = the GPU if there is one)"
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)


_MODEL = (
    "a hub id, a weight file or folder, model.json of `vggt-quant model`, "
    "tiny (small and trained, in this package), tiny-outliers (its twin with heavy-tailed activations), "
    "or small-random, nano-random, vggt-1b-random (seeded random weights)"
)
_FOLDER = (
    "a folder of photos, a scene with ground truth (ETH3D's or 7-Scenes' layout), a folder of such scenes, "
    "or `drawn` for rooms that the project draws itself"
)
