"""`vggt-quant keys`: what each stage of each variant depends on; the workflow asks this."""

import json
from argparse import ArgumentParser, Namespace

from vggt_quant.cli import flags
from vggt_quant.runtime import machine
from vggt_quant.variants import load_variants

HELP = "print, as JSON, what each stage of each variant depends on (the workflow asks this)"
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """Which variants, on which device of which machine."""
    flags.variants_file(command)
    text = "other machines run the jobs, so `--device cuda` needs no GPU here"
    command.add_argument("--elsewhere", action="store_true", help=text)
    flags.device(command)


def run(args: Namespace) -> None:
    """Print the keys."""
    from vggt_quant.runtime.cache_keys import stage_codes

    is_believed = args.elsewhere and args.device == "cuda"
    device = args.device if is_believed else machine.resolve_device(args.device)
    print(json.dumps(stage_codes(load_variants(args.variants), device), indent=1))
