"""`vggt-quant model`: find and identify the weights."""

import logging
from argparse import ArgumentParser, Namespace

from vggt_quant.cli import flags
from vggt_quant.results.schema import ModelResult
from vggt_quant.runtime import memory

HELP = "find (and if need be download) a model's weights and identify them"
FOR_WORKFLOW = True
log = logging.getLogger(__name__)


def add_flags(command: ArgumentParser) -> None:
    """The model, and those of a step."""
    flags.model(command)
    flags.step(command)


def run(args: Namespace) -> ModelResult:
    """Find and identify the weights."""
    from vggt_quant.cli import _inputs

    with memory.memory_limit(args.memory_limit_mb):
        result = _inputs.model(args.model)
    log.info("%s: %s, %.1f M parameters", result.name, result.label, result.num_parameters / 1e6)
    return result
