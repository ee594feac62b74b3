"""`vggt-quant speed` without a checkpoint: a table of cost against the number of images, one row per variant.

Each variant is packed and timed in fresh processes. Its result is kept in the output folder with a key of everything
that it depends on. So an interrupted command resumes: it repeats what failed, what is missing and what has changed.
Every session that times anything also times our bf16 engine again, and speedups compare within one session.
"""

import logging
import re
import signal
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vggt_quant.cli._outputs import expect_output_folder
from vggt_quant.quantization.catalog import load_variants
from vggt_quant.report import speed_folder, speed_report
from vggt_quant.results.schema import Error, Failed, ModelResult, QuantizeResult, Unsupported, read, read_outcome, write
from vggt_quant.results.speed_schema import SweepResult
from vggt_quant.runtime import cache_keys, jobs, locks, machine, provenance
from vggt_quant.runtime.fingerprint import digest
from vggt_quant.variants import Variant, expect_variants

BASELINE = "bf16"
NUM_IMAGES = (1, 2, 5, 10, 20, 50, 100)
COMPARED = (1, 5)
STOPPED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM))
"""Exit codes of a job that a user or the system interrupted; this command then ends, too."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is asked for."""

    folder: Path
    cache: Path
    model: str
    variants: dict[str, Variant]
    variants_file: Path | None
    num_images: list[int]
    compared: list[int]
    """Sizes at which outputs are compared with strict float32."""
    image_size: tuple[int, int]
    device: str
    repeats: int | None
    fill_memory: list[int]
    limit_mb: int | None


def run(args: Namespace) -> int:
    """Time what is missing, then write and print the table.

    Returns:
        0, or 1 if a variant that is not optional failed, or 128 + signal if somebody ended it.

    Raises:
        ValueError: A model or variant that does not exist, a folder that is not to be
            written to or holds another table.
    """
    if args.redraw:
        names = speed_report.names_in(args.redraw, args.variants or [], [BASELINE, *load_variants(args.variants_file)])
        print(speed_report.write_table(speed_report.collect(args.redraw, names), args.redraw))
        return 0
    expect_output_folder(args.output)
    plan = make_plan(args)
    try:
        with locks.sole_run(plan.folder):
            code = _measure_and_draw(plan)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    if code in STOPPED:
        print("Not all is measured; the same command goes on from here.", file=sys.stderr)
    return code


def _measure_and_draw(plan: Plan) -> int:
    """Measure and draw; returns the exit code."""
    model = _prepare_inputs(plan)
    wanted = {name: _key(plan, model, variant) for name, variant in plan.variants.items()}
    code = _measure_missing(plan, wanted)
    table = speed_report.gather(plan.folder, wanted, speed_report.label_of(model), plan.num_images, plan.image_size)
    print(speed_report.write_table(table, plan.folder))
    failed = [
        row for row in table.rows if row.outcome in ("failed", "missing") and not plan.variants[row.variant].optional
    ]
    return code if code in STOPPED else int(bool(failed))


def make_plan(args: Namespace) -> Plan:
    """The flags, checked."""
    variants, device = load_variants(args.variants_file), machine.resolve_device(args.device)
    num_images = sorted(set(args.num_images or NUM_IMAGES))
    return Plan(
        folder=args.output,
        cache=args.cache or args.output / "cache",
        model=_random(args.model) if args.random_weights else args.model,
        variants={name: variants[name] for name in _chosen(args.variants or [], variants, device)},
        variants_file=args.variants_file,
        num_images=num_images,
        compared=_compared(args.compare_at, num_images),
        image_size=args.image_size,
        device=device,
        repeats=args.repeats,
        fill_memory=args.fill_memory,
        limit_mb=args.memory_limit_mb,
    )


def _random(model: str) -> str:
    """`vggt-1b`, `facebook/VGGT-1B` and `vggt-1b-random` all as the last."""
    return model if re.search("-random(:[0-9]+)?$", model) else f"{Path(model).name.lower()}-random"


def _compared(asked: list[int] | None, num_images: list[int]) -> list[int]:
    if asked is None:
        return [number for number in COMPARED if number in num_images]
    if absent := set(asked) - set(num_images):
        raise ValueError(f"--compare-at {min(absent)} is not among --num-images {','.join(map(str, num_images))}.")
    return sorted(set(asked))


def _chosen(asked: list[str], every: dict[str, Variant], device: str) -> list[str]:
    """The rows of the table, the baseline always among them."""
    expect_variants(asked, every)
    usual = [name for name, variant in every.items() if variant.is_default(device)]
    names = list(dict.fromkeys([*([BASELINE] if BASELINE in every else []), *(asked or usual)]))
    if odd := [name for name in names if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)]:
        raise ValueError(f"Variant {odd[0]!r} gives files their name: take letters, digits and _ only.")
    return names


def _measure_missing(plan: Plan, wanted: dict[str, str]) -> int:
    """Time every variant whose result is missing, failed or has another key; returns the last exit code."""
    todo = [name for name, key in wanted.items() if not _is_done(plan, name, key)]
    if not todo:
        log.info("All %d variants are measured.", len(wanted))
        return 0
    started = provenance.now()
    first = [BASELINE] if BASELINE in wanted else []
    code = _make_reference(plan)
    for name in dict.fromkeys([*first, *todo]):
        if code in STOPPED:
            return code
        log.info("%s", name)
        code, result = _measure(plan, plan.variants[name])
        if code in STOPPED:
            return code
        result = replace(result, key=wanted[name], started=started)
        speed_folder.keep_earlier(plan.folder, name, wanted[name])
        write(result, speed_folder.sweep_path(plan.folder, name))
        if name == BASELINE:
            write(result, speed_folder.baseline_path(plan.folder, started))
    return code


def _prepare_inputs(plan: Plan) -> ModelResult:
    # They import torch, which the other doors of this module need not wait for.
    from vggt_quant.data import prepare, random_photos

    model = read(ModelResult, plan.model) if plan.model.endswith(".json") else prepare.prepare_model(plan.model)
    _check_images(plan, model.config["patch_size"])
    speed_folder.expect_same_table(plan.folder, model, plan.image_size)
    height, width = plan.image_size
    write(model, plan.folder / "inputs" / "model.json")
    for name, counts in (("photos", [max(plan.num_images)]), ("compared", plan.compared)):
        if counts:
            made = random_photos.prepare(plan.folder / "inputs", counts, height, width)
            write(made, plan.folder / "inputs" / f"{name}.json")
    return model


def _check_images(plan: Plan, patch: int) -> None:
    height, width = plan.image_size
    if height % patch or width % patch:
        raise ValueError(f"--image-size is {height}x{width}; this model takes multiples of {patch}.")
    needed = 2 * 3 * 4 * height * width * max(plan.num_images)  # float32, drawn and then copied
    if needed > machine.memory_bytes():
        many = f"--num-images {max(plan.num_images)} of {height}x{width}"
        raise ValueError(f"{many} are {needed / 2e9:,.0f} GB of images alone, too many for this machine; give fewer.")


def _key(plan: Plan, model: ModelResult, variant: Variant) -> str:
    """Hash of all that decides a variant's figures."""
    try:
        code = cache_keys.sweep_code(variant)
    except ValueError as error:
        raise ValueError(f"Variant {variant.name}: {error}") from error
    asked = [plan.num_images, plan.compared, plan.image_size, plan.repeats, plan.fill_memory, _limit(plan, variant)]
    device = [plan.device, machine.device_name(plan.device), provenance.torch_version(), provenance.kernel_libraries()]
    return digest([code, asked, device, model.weights_sha256, model.config])


def _is_done(plan: Plan, name: str, key: str) -> bool:
    result = speed_folder.find(speed_folder.sweep_path(plan.folder, name))
    return result is not None and result.key == key and result.outcome != "failed"


def _make_reference(plan: Plan) -> int:
    """The outputs in strict float32; without them the table lacks one column and nothing else."""
    out = plan.folder / "reference.json"
    out.unlink(missing_ok=True)
    if not plan.compared:
        return 0
    words = ["--model", str(plan.folder / "inputs" / "model.json")]
    words += ["--images", str(plan.folder / "inputs" / "compared.json")]
    return _job(plan, "reference", [*words, "--cache", str(plan.cache), "--result", str(out)])[0]


def _measure(plan: Plan, variant: Variant) -> tuple[int, SweepResult | Unsupported | Failed]:
    """Pack and time one variant; if that fails, the result is the reason."""
    packed, out = (plan.folder / kind / f"{variant.name}.json" for kind in ("quantize", "inputs/timed"))
    which = ["--variant", variant.name, *(["--variants-file", str(plan.variants_file)] if plan.variants_file else [])]
    model = ["--model", str(plan.folder / "inputs" / "model.json"), "--cache", str(plan.cache)]
    code, error = _job(plan, "quantize", [*model, *which, "--result", str(packed)], variant)
    if error is None and not isinstance(made := read_outcome(QuantizeResult, packed), QuantizeResult):
        return 0, made
    if error is None:
        words = ["--packed", str(packed), *which, *_speed_words(plan, variant), "--result", str(out)]
        code, error = _job(plan, "speed", words, variant)
    if error is None:
        return code, read_outcome(SweepResult, out)
    return code, Failed(variant=variant.name, error=error)


def _speed_words(plan: Plan, variant: Variant) -> list[str]:
    limit, reference = _limit(plan, variant), plan.folder / "reference.json"
    return [
        *("--images", str(plan.folder / "inputs" / "photos.json")),
        *("--num-images", ",".join(map(str, plan.num_images))),
        *(["--reference", str(reference)] if reference.is_file() else []),
        *(["--repeats", str(plan.repeats)] if plan.repeats else []),
        *(["--fill-memory", ",".join(map(str, plan.fill_memory))] if plan.fill_memory else []),
        *(["--memory-limit-mb", str(limit)] if limit else []),
    ]


def _job(plan: Plan, stage: str, words: list[str], variant: Variant | None = None) -> tuple[int, Error | None]:
    name = variant.name if variant else None
    status = plan.folder / "logs" / f"{stage}{f'_{name}' if name else ''}.status.json"
    return jobs.supervise(
        stage,
        name,
        status,
        [stage, *words, "--device", plan.device, "--status", str(status)],
        needs_gpu=plan.device == "cuda",
        limit_mb=_limit(plan, variant) if variant and stage == "speed" else None,
    )


def _limit(plan: Plan, variant: Variant) -> int | None:
    return plan.limit_mb or variant.memory_limit_mb
