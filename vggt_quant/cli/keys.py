"""`vggt-quant keys`: a checked configuration, and what each stage of each of its variants depends on."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import msgspec

from vggt_quant.cli import _older_results, flags
from vggt_quant.quantization.catalog import load_variants
from vggt_quant.results.yaml_file import read_yaml
from vggt_quant.runtime import machine
from vggt_quant.variants import Comparison, Variant, expect_variants, read_comparison

HELP = (
    "check a configuration; print it and, as JSON, what each stage of each variant depends on (the workflow asks this)"
)
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """Which configuration, and whose machines run it."""
    text = "a config.yaml; `-` reads it from stdin (default: all variants of --variants-file, on --device)"
    command.add_argument("--config", type=Path, metavar="FILE.yaml", help=text)
    flags.variants_file(command)
    text = "other machines run the jobs, so `device: cuda` needs no GPU here"
    command.add_argument("--elsewhere", action="store_true", help=text)
    flags.device(command)


def run(args: Namespace) -> None:
    """Print the keys."""
    from vggt_quant.runtime.cache_keys import stage_codes

    comparison, notes = _comparison(args)
    variants = load_variants(comparison.variants_file)
    expect_variants(comparison.variants or [], variants)
    is_believed = args.elsewhere and comparison.device == "cuda"
    device = comparison.device if is_believed else machine.resolve_device(comparison.device)
    chosen = _chosen(comparison, variants, device) if args.config else variants
    older = _older_results.remark(Path(comparison.results_dir).absolute(), chosen) if args.config else None
    notes += [older] if older else []
    answer: dict[str, Any] = {"config": msgspec.to_builtins(comparison), "notes": notes, **stage_codes(chosen, device)}
    answer["memory_limit_mb"] = {name: variant.memory_limit_mb for name, variant in chosen.items()}
    print(json.dumps(answer, indent=1))


def _comparison(args: Namespace) -> tuple[Comparison, list[str]]:
    if args.config is None:
        return Comparison(device=args.device, variants_file=str(args.variants_file) if args.variants_file else None), []
    if args.variants_file:
        raise ValueError("--variants-file would have no effect with --config; write variants_file into the config.")
    is_piped = str(args.config) == "-"
    return read_comparison(json.load(sys.stdin) if is_piped else read_yaml(args.config), "config")


def _chosen(comparison: Comparison, variants: dict[str, Variant], device: str) -> dict[str, Variant]:
    """The variants to compare, in the order asked for; where none is, those that this device compares by default."""
    usual = [name for name, variant in variants.items() if variant.is_default(device)]
    return {name: variants[name] for name in comparison.variants or usual}
