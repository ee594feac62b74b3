"""`vggt-quant calibration`: which scenes methods may learn from."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.results.schema import ImagesResult, read
from vggt_quant.runtime import memory

HELP = "find and preprocess the scenes for methods that calibrate; refuse photos that are compared on"
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """Those of a step, the scenes, and those that are compared on."""
    flags.step(command)
    command.add_argument("--images", type=Path, required=True, help="images.json of `vggt-quant images`")
    flags.scenes(command)


def run(args: Namespace) -> ImagesResult:
    """Find and preprocess the scenes."""
    from vggt_quant.cli import _inputs
    from vggt_quant.data import prepare

    with memory.memory_limit(args.memory_limit_mb):
        compared, settings = read(ImagesResult, args.images), _inputs.image_settings(args)
        folder = _inputs.prepared_folder(args)
        result = prepare.prepare_calibration(args.image_folder, folder, compared, **settings)
    return _inputs.log_scenes(result)
