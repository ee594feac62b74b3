"""`vggt-quant images`: find and preprocess the scenes on which variants are compared."""

from argparse import ArgumentParser, Namespace

from vggt_quant.cli import flags
from vggt_quant.results.schema import ImagesResult
from vggt_quant.runtime import memory

HELP = "find the photos of a folder, say how many and where, and preprocess them as VGGT does"
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """The scenes, how to prepare them, and those of a step."""
    flags.folder(command)
    flags.preparation(command)
    flags.step(command)


def run(args: Namespace) -> ImagesResult:
    """Find and preprocess the scenes."""
    from vggt_quant.cli import _inputs
    from vggt_quant.data import prepare

    with memory.memory_limit(args.memory_limit_mb):
        settings = _inputs.image_settings(args)
        result = prepare.prepare_images(args.images, _inputs.prepared_folder(args), **settings)
    return _inputs.log_scenes(result)
