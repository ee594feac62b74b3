"""`vggt-quant reference`: compute the fp32 outputs."""

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.results.schema import ReferenceResult
from vggt_quant.runtime import machine, memory

HELP = "run the original model in float32 and keep its outputs"
FOR_WORKFLOW = True
log = logging.getLogger(__name__)


def add_flags(command: ArgumentParser) -> None:
    """What is run on what, where, and those of a step."""
    flags.model(command)
    flags.images(command)
    text = "folder that gets the outputs; what it holds already is not computed again"
    command.add_argument("--cache", type=Path, metavar="FOLDER", required=True, help=text)
    flags.device(command)
    flags.step(command)


def run(args: Namespace) -> ReferenceResult:
    """Run the model on each scene that the cache does not know yet."""
    from vggt_quant.cli import _inputs
    from vggt_quant.evaluation.reference import make_reference

    with memory.memory_limit(args.memory_limit_mb):
        device, model = machine.resolve_device(args.device), _inputs.model(args.model)
        with _inputs.photos(args, model.config) as photos:
            result = make_reference(model, photos, args.cache, device)
    for name, info in result.outputs.items():
        log.info("%s: %s %s %s", name, info.type, info.shape or "", info.dtype or "")
    log.info("%d of %d scenes were in the cache", sum(scene.cached for scene in result.scenes), len(result.scenes))
    return result
