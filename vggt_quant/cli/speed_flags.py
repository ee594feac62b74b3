"""Which flags of `vggt-quant speed` go together: it times one checkpoint, measures a table or draws one again."""

from argparse import Namespace

from vggt_quant.cli import flags

CHECKPOINT, DRAWING, TABLE = "--packed", "--redraw", "--output-dir"
MEASURING = {"num_images", "repeats", "fill_memory", "device", "variants", "memory_limit_mb"}
FLAGS = {  # --model beside --packed is what `accuracy` needs, so the same words do for both
    CHECKPOINT: MEASURING | {"packed", "images", "variant", "reference", "out", "status", "model"},
    DRAWING: {"redraw", "methods", "variants"},
    TABLE: MEASURING | {"output_dir", "model", "random_weights", "methods", "image_size", "compare_at", "cache"},
}
WAYS = {
    CHECKPOINT: "which times one checkpoint",
    DRAWING: "which measures nothing",
    TABLE: "where the table of a model goes",
}
SIZES_ONLY = {"repeats", "reference", "fill_memory"}
"""With a checkpoint they go with --num-images only."""


def check(args: Namespace) -> None:
    """Refuse flags that would have no effect.

    Raises:
        ValueError: Names them and what they do not go with.
    """
    way = CHECKPOINT if args.packed else DRAWING if args.redraw else TABLE
    usual = vars(flags.parser().parse_args([args.command]))
    given = {name for name, value in vars(args).items() if value != usual.get(name)}
    if foreign := given - FLAGS[way]:
        raise ValueError(f"{_flags(foreign)} would have no effect with {way}, {WAYS[way]}; leave it out.")
    if way == TABLE and not (args.output_dir and args.model):
        raise ValueError(
            "Give --packed to time one checkpoint, or --model and --output-dir to time variants of a model."
        )
    if way == CHECKPOINT and not args.num_images and (idle := given & SIZES_ONLY):
        raise ValueError(f"{_flags(idle)} would have no effect without --num-images; give that, too, or leave it out.")
    if args.methods and not any(args.methods):
        raise ValueError("--methods names no variant; give some, such as bf16,fp8, or leave it out.")


def _flags(names: set[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
