"""`vggt-quant`: each subcommand parses, calls one function, writes one file.

The parent of a supervised job, the help text and the keys must start in a blink, and a GPU must be chosen before torch
is imported; so the modules that do the work are imported when their command is asked for.
"""

import dataclasses
import importlib
import json
import logging
import os
import sys
from argparse import Namespace
from types import ModuleType
from typing import Any

from vggt_quant.cli import flags
from vggt_quant.results import schema
from vggt_quant.runtime import jobs, machine, memory
from vggt_quant.variants import find_variant

STAGES = ("images", "calibration", "model", "reference", "quantize", "accuracy", "speed")
"""Commands that make one result file and can run as supervised jobs; the functions of `stages`."""


HOMES = {"report": "report.collect", "keys": "runtime.cache_keys", "fetch": "data.fetch"}
"""Where a command stands that is not in this folder."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 the user's mistake, 1 any other failure, 128 + signal."""
    words = [hyphenated(word) for word in (sys.argv[1:] if argv is None else argv)]
    args = flags.parser().parse_args(words)
    memory.let_segments_grow()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # It prints by itself.
    module = "speed_table" if args.command == "speed" and not args.packed else args.command
    if module not in STAGES:
        return jobs.work(args.command, None, None, lambda: _module(module).command(args))
    if args.status and jobs.WORKER not in os.environ:
        return jobs.work(args.command, None, None, lambda: _supervise(args, words))
    return _work(args)


def hyphenated(word: str) -> str:
    """`--max_images=3` as `--max-images=3`: underscore spellings are accepted."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _work(args: Namespace) -> int:
    limit_mb = args.memory_limit_mb

    def action() -> None:
        stages = _module("stages")
        # Not around the import: OpenBLAS waits for ever for memory that it does not get when it is loaded.
        with memory.memory_limit(limit_mb):
            result = getattr(stages, args.command)(args)
        _write(result, args)

    return jobs.work(args.command, getattr(args, "variant", None), args.status, action, limit_mb)


def _supervise(args: Namespace, words: list[str]) -> int:
    variant = getattr(args, "variant", None)
    code, error = jobs.supervise(
        args.command, variant, args.status, words, needs_gpu=_needs_gpu(args), limit_mb=args.memory_limit_mb
    )
    if error and variant and find_variant(variant, args.variants).optional:
        _write(_reason_instead(args.command, variant, error), args)
        return 0
    return code


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"vggt_quant.{HOMES.get(name, f'cli.{name}')}")


def _needs_gpu(args: Namespace) -> bool:
    try:
        return machine.resolve_device(getattr(args, "device", "cpu")) == "cuda"
    except ValueError:
        return False  # The worker fails in the same way, and that is recorded.


def _reason_instead(stage: str, variant: str, error: schema.Error) -> Any:
    """The result of an optional variant that failed: its reason."""
    failed = {"variant": variant, "outcome": "failed", "error": error}
    if stage == "quantize":
        return schema.QuantizeResult(**failed, spec={})
    return schema.AccuracyResult(**failed, label="") if stage == "accuracy" else schema.SpeedResult(**failed)


def _write(result: Any, args: Namespace) -> None:
    if args.out:
        schema.write(result, args.out)
    else:
        print(json.dumps(dataclasses.asdict(result), indent=1))
