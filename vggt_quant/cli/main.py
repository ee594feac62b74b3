"""`vggt-quant`: finds its commands by file name, parses, runs one, writes its result.

A command is a file of this folder, named as the command, with

    HELP              one line for people
    add_flags(parser) its flags
    run(args)         the work: returns an exit code (None is 0) or, if it is a step, its result
    FOR_WORKFLOW      optional: True for a command that the workflow calls and people seldom do

Files that start with `_` are parts of commands; flags.py has the flags that several commands share. A command imports
torch, and whatever imports it, inside `run`. There are two reasons: help, keys and the parent of a supervised job must
start fast, and a GPU must be chosen before torch is imported.
"""

import argparse
import importlib
import logging
import os
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

from vggt_quant.cli._outputs import expect_output_file
from vggt_quant.cli._parser import Parser, Version, overview
from vggt_quant.results import schema
from vggt_quant.results.record import Record
from vggt_quant.runtime import interrupts, jobs, machine, memory
from vggt_quant.variants import find_variant


def commands() -> dict[str, ModuleType]:
    """The file of each command, by the command's name."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return {name: importlib.import_module(f"vggt_quant.cli.{name}") for name in found if name not in ("main", "flags")}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    modules = commands()
    top = Parser(
        prog="vggt-quant",
        usage="vggt-quant [--help] [--version] COMMAND [--help] ...",
        description="Quantize VGGT with several methods and formats, and measure size, speed, memory and accuracy.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=overview({name: (module.HELP, hasattr(module, "FOR_WORKFLOW")) for name, module in modules.items()}),
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version and end")
    all_commands = top.add_subparsers(
        dest="command", required=True, prog="vggt-quant", metavar="COMMAND", help=argparse.SUPPRESS
    )
    for name, module in modules.items():
        command = all_commands.add_parser(name, description=module.HELP)
        command.set_defaults(module=module, is_step=lambda args: False, default_of=command.get_default)
        module.add_flags(command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 the user's mistake, 1 any other failure, 128 + signal."""
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        if jobs.WORKER not in os.environ:  # else its parent says so
            print(interrupts.SENTENCE, file=sys.stderr)
        return interrupts.CODE


def _main(words: list[str]) -> int:
    args = parser().parse_args(words)
    memory.let_segments_grow()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # It prints by itself.
    if not args.is_step(args):
        return jobs.work(args.command, None, None, lambda: args.module.run(args))
    if args.status and jobs.WORKER not in os.environ:
        return jobs.work(args.command, None, None, lambda: _supervise(args, words))
    variant = getattr(args, "variant", None)
    return jobs.work(args.command, variant, args.status, lambda: _work(args), args.memory_limit_mb)


def _work(args: Namespace) -> None:
    if args.result:
        expect_output_file(args.result, "--result")
    _write(args.module.run(args), args)


def _write(result: Record, args: Namespace) -> None:
    if args.result:
        schema.write(result, args.result)
    elif not getattr(args, "output", None):  # else what was asked for is there, and a line has said so
        print(schema.as_text(result), end="")


def _supervise(args: Namespace, words: list[str]) -> int:
    """Run a step in a fresh process; if an optional variant fails, its result is the reason."""
    variant = getattr(args, "variant", None)
    code, error = jobs.supervise(
        args.command, variant, args.status, words, needs_gpu=_needs_gpu(args), limit_mb=args.memory_limit_mb
    )
    if error and variant and find_variant(variant, args.variants_file).optional:
        _write(schema.Failed(variant=variant, error=error), args)
        return 0
    return code


def _needs_gpu(args: Namespace) -> bool:
    try:
        return machine.resolve_device(getattr(args, "device", "cpu")) == "cuda"
    except ValueError:
        return False  # The worker fails in the same way, and that is recorded.
