"""`vggt-quant calibration`: find and preprocess the scenes for methods that calibrate."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.results.schema import ImagesResult, read
from vggt_quant.runtime import memory

HELP = "find and preprocess the scenes for methods that calibrate; refuse photos that are compared on"
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """The scenes, those that are compared on, how to prepare them, and those of a step."""
    flags.folder(command)
    text = "images.json of `vggt-quant images`: the scenes that variants are compared on"
    command.add_argument("--compared", type=Path, metavar="images.json", required=True, help=text)
    flags.preparation(command)
    flags.step(command)


def run(args: Namespace) -> ImagesResult:
    """Find and preprocess the scenes."""
    from vggt_quant.cli import _inputs
    from vggt_quant.data import prepare

    with memory.memory_limit(args.memory_limit_mb):
        compared, settings = read(ImagesResult, args.compared), _inputs.image_settings(args)
        folder = _inputs.prepared_folder(args)
        result = prepare.prepare_calibration(args.images, folder, compared, **settings)
    return _inputs.log_scenes(result)
