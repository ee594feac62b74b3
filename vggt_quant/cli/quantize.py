"""`vggt-quant quantize`: make the packed checkpoint of a variant."""

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.cli._outputs import expect_output_file
from vggt_quant.quantization.catalog import find_variant
from vggt_quant.results.schema import QuantizeResult
from vggt_quant.runtime import machine, memory

HELP = "make the packed checkpoint of a variant"
log = logging.getLogger(__name__)


def add_flags(command: ArgumentParser) -> None:
    """What becomes what, where, and those of a step."""
    flags.model(command)
    flags.variant(command, "the variant to make, e.g. int4_group128")
    text = "the checkpoint to write"
    command.add_argument("--output", type=flags.checkpoint_file, metavar="FILE.safetensors", help=text)
    flags.cache(command, "none; --output is enough")
    flags.device(command)
    flags.step(command)


def run(args: Namespace) -> QuantizeResult:
    """Make the checkpoint, or find it in the cache.

    Raises:
        ValueError: Nobody said where it goes, nothing can be written there, or it would replace the model that it
            is made of.
    """
    if not (args.output or args.cache):
        raise ValueError("Say where the checkpoint goes: --output FILE.safetensors, or --cache FOLDER to keep it in.")
    if args.output and args.output.exists() and Path(args.model).exists() and args.output.samefile(args.model):
        raise ValueError(f"--output {args.output} is the model itself; give the checkpoint another name.")
    if args.output:
        expect_output_file(args.output)
    variant = find_variant(args.variant, args.variants_file)
    from vggt_quant.cli import _inputs
    from vggt_quant.quantization.make_checkpoint import copy_checkpoint, make_checkpoint, write_checkpoint

    with memory.memory_limit(args.memory_limit_mb):
        device = machine.resolve_device(args.device)
        model = _inputs.model(args.model)
        if not args.cache:
            return _log(write_checkpoint(model, variant, args.output, device))
        made = make_checkpoint(model, variant, args.cache, device)
        if not args.output:
            return _log(made)
        copy = copy_checkpoint(made, variant, args.output)
        _log(made, f", copied to {args.output}")
        return copy


def _log(result: QuantizeResult, copied: str = "") -> QuantizeResult:
    verb = "found" if result.cached else "made"
    log.info("%s %s%s (%.1f MB)", verb, result.checkpoint, copied, result.checkpoint_bytes / 1e6)
    return result
