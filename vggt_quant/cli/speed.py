"""`vggt-quant speed`: measure time and memory of one checkpoint, or of a table of variants."""

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.results.schema import Failed, Packed, ReferenceResult, SpeedResult, Unsupported, read
from vggt_quant.results.speed_schema import SweepResult
from vggt_quant.runtime import machine, memory

HELP = "measure the time and memory of a packed checkpoint's forward pass; without --packed, of a table of variants"
log = logging.getLogger(__name__)

CHECKPOINT, DRAWING, TABLE = "--packed", "--redraw", "--output"
MEASURING = {"num_images", "repeats", "fill_memory", "device", "variants_file", "memory_limit_mb"}
FLAGS = {  # --model with --packed is what `accuracy` needs, so the same words do for both
    CHECKPOINT: MEASURING | {"packed", "images", "variant", "reference", "result", "status", "model"},
    DRAWING: {"redraw", "variants", "variants_file"},
    TABLE: MEASURING | {"output", "model", "random_weights", "variants", "image_size", "compare_at", "cache"},
}
USES = {
    CHECKPOINT: "which times one checkpoint",
    DRAWING: "which measures nothing",
    TABLE: "where the table of a model goes",
}
SIZES_ONLY = {"repeats", "reference", "fill_memory"}
"""With a checkpoint they go with --num-images only."""


def add_flags(command: ArgumentParser) -> None:
    """Those of one checkpoint, then those of the table."""
    command.add_argument("--model", help="for the table (a checkpoint knows its model): " + flags.MODEL)
    flags.images(command)
    flags.packed(command, required=False)
    flags.variant(command, flags.HOW_TO_RUN, required=False)
    flags.device(command)
    text = "numbers of images at a time, e.g. 1,5,20 (default: all photos at once; for the table 1,2,5,10,20,50,100)"
    command.add_argument("--num-images", type=flags.counts, metavar="N,...", help=text)
    text = "timed passes at each of them (default: for three seconds)"
    command.add_argument("--repeats", type=flags.positive, metavar="N", help=text)
    text = "reference.json of `vggt-quant reference`, to compare the timed outputs with"
    command.add_argument("--reference", type=Path, metavar="reference.json", help=text)
    text = "also find, by running, the largest number of images that fits in each of these memory sizes (GiB)"
    command.add_argument("--fill-memory", type=flags.counts, metavar="GIB,...", default=[], help=text)
    _add_table_flags(command)
    flags.step(command)
    command.set_defaults(is_step=lambda args: args.packed is not None)


def _add_table_flags(command: ArgumentParser) -> None:
    table = command.add_argument_group("the table (without --packed)")
    text = "folder that gets speed_table.json, .txt and .png and all results"
    table.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    text = "the variants to time, e.g. bf16,fp8 (default: those of `compare`)"
    flags.variants(table, text)
    table.add_argument("--random-weights", action="store_true", help="seeded random weights in the sizes of --model")
    text = "of the photos, in pixels (default: 350x518)"
    table.add_argument(
        "--image-size", type=flags.height_and_width, default=(350, 518), metavar="HEIGHTxWIDTH", help=text
    )
    text = "measure nothing: draw the table again from all results in this folder, from any machine"
    table.add_argument("--redraw", type=Path, metavar="FOLDER", help=text)
    text = "image counts at which to compare outputs with fp32, or none (default: 1,5)"
    table.add_argument("--compare-at", type=flags.counts_or_none, metavar="N,...", help=text)
    flags.cache(table, "the folder cache in --output")


def run(args: Namespace) -> SpeedResult | SweepResult | Unsupported | Failed | int:
    """Time one checkpoint and return its result, or measure or draw a table and return an exit code."""
    check(args)
    if not args.packed:
        from vggt_quant.cli import _speed_table

        return _speed_table.run(args)
    from vggt_quant.cli import _inputs
    from vggt_quant.inference.engine import UnsupportedError

    packed = _inputs.packed(args)
    if isinstance(packed, Unsupported | Failed):
        return packed
    try:
        return _measure(args, packed)
    except UnsupportedError as reason:
        return _inputs.unsupported(packed.variant, "speed", reason)


def check(args: Namespace) -> None:
    """Refuse flags that would have no effect.

    Raises:
        ValueError: Names them and what they do not go with.
    """
    use = CHECKPOINT if args.packed else DRAWING if args.redraw else TABLE
    known = set().union(*FLAGS.values())
    given = {name for name in known if getattr(args, name) != args.default_of(name)}
    if foreign := given - FLAGS[use]:
        raise ValueError(f"{_flags(foreign)} would have no effect with {use}, {USES[use]}; leave it out.")
    if use == TABLE and not (args.output and args.model):
        raise ValueError("Give --packed to time one checkpoint, or --model and --output to time variants of a model.")
    if use == CHECKPOINT and not args.num_images and (idle := given & SIZES_ONLY):
        raise ValueError(f"{_flags(idle)} would have no effect without --num-images; give that, too, or leave it out.")


def _flags(names: set[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def _measure(args: Namespace, packed: Packed) -> SpeedResult | SweepResult:
    from vggt_quant.benchmark import sweep, timing
    from vggt_quant.cli import _inputs

    memory.keep_freed_memory()  # here and not where it is timed: it belongs to the whole process
    with memory.memory_limit(args.memory_limit_mb):
        device, settings = machine.resolve_device(args.device), _inputs.run_settings(args, packed)
        config = _inputs.config_of(str(packed.checkpoint))
        with _inputs.photos(args, config, max_scenes=1) as photos:
            if args.num_images:
                reference = read(ReferenceResult, args.reference) if args.reference else None
                return sweep.measure_sweep(
                    photos,
                    packed,
                    device,
                    settings,
                    num_images=args.num_images,
                    repeats=args.repeats,
                    reference=reference,
                    fill_memory_gib=args.fill_memory,
                )
            result = timing.measure_speed(photos, packed, device, settings)
    log.info("%.1f ms median of %d", result.latency_ms_median, len(result.latencies_ms))
    return result
