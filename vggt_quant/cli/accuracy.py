"""`vggt-quant accuracy`: how far a variant's outputs are from those of fp32."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.results.schema import AccuracyResult, Failed, Unsupported
from vggt_quant.runtime import machine, memory

HELP = "measure how far a packed checkpoint is from fp32 on the same photos"
FOR_WORKFLOW = True


def add_flags(command: ArgumentParser) -> None:
    """What is compared with what, where, and those of a step."""
    flags.model(command)
    flags.images(command)
    text = "reference.json of `vggt-quant reference` (default: make it now)"
    command.add_argument("--reference", type=Path, metavar="reference.json", help=text)
    flags.packed(command)
    flags.variant(command, flags.HOW_TO_RUN, required=False)
    flags.cache(command, "none: keep nothing")
    flags.device(command)
    flags.step(command)


def run(args: Namespace) -> AccuracyResult | Unsupported | Failed:
    """Run the checkpoint on every scene; "unsupported" with its reason where this machine cannot."""
    from vggt_quant.cli import _inputs
    from vggt_quant.evaluation.accuracy import measure_accuracy
    from vggt_quant.evaluation.reference import make_reference
    from vggt_quant.inference.engine import UnsupportedError

    with memory.memory_limit(args.memory_limit_mb):
        device, packed = machine.resolve_device(args.device), _inputs.packed(args)
        if isinstance(packed, Unsupported | Failed):
            return packed
        model = _inputs.model(args.model)
        made = _inputs.reference(args.reference) if args.reference else None
        try:
            with _inputs.photos(args, model.config) as photos, _inputs.cache(args) as cache:
                fp32 = made or make_reference(model, photos, cache, device)
                return measure_accuracy(model, photos, fp32, packed, device, _inputs.run_settings(args, packed))
        except UnsupportedError as reason:
            return _inputs.unsupported(packed.variant, "accuracy", reason)
