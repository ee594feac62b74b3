"""`vggt-quant quantize`: the packed checkpoint of a variant."""

import logging
from argparse import ArgumentParser, Namespace

from vggt_quant.cli import flags
from vggt_quant.results.schema import Error, QuantizeResult
from vggt_quant.runtime import machine, memory
from vggt_quant.variants import find_variant

HELP = "make the packed checkpoint of a variant"
log = logging.getLogger(__name__)


def add_flags(command: ArgumentParser) -> None:
    """Those of a step, and what becomes what, where."""
    flags.step(command)
    flags.model(command)
    flags.variant(command)
    flags.cache(command)
    flags.device(command)


def run(args: Namespace) -> QuantizeResult:
    """Make the checkpoint, or find it in the cache."""
    from vggt_quant.cli import _inputs
    from vggt_quant.quantization.make_checkpoint import make_checkpoint

    with memory.memory_limit(args.memory_limit_mb):
        variant, device = find_variant(args.variant, args.variants), machine.resolve_device(args.device)
        result = make_checkpoint(_inputs.model(args.model), variant, args.cache, device)
    verb = "found" if result.cached else "made"
    log.info("%s %s (%.1f MB)", verb, result.checkpoint, result.checkpoint_bytes / 1e6)
    return result


def failed(args: Namespace, error: Error) -> QuantizeResult:
    """The result of a variant that could not be quantized and may fail."""
    return QuantizeResult(variant=args.variant, outcome="failed", error=error, spec={})
