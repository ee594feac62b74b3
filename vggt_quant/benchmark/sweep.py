"""Cost against size: one checkpoint, loaded once, timed on more and more images -> SweepResult.

Each variant runs in a fresh process. Every size has one first pass (with all compiling and capturing), a warm-up and
timed passes; its memory is measured. At some sizes the outputs of the timed engine are compared with strict float32.
Sizes go up, so the first one that does not fit in memory ends the sweep, and its row holds the reason.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from msgspec.structs import replace
from torch import Tensor

from vggt_quant.benchmark.operations import Work
from vggt_quant.benchmark.timing import MEMORY_KINDS, Repeats, interquartile_range, time_forward
from vggt_quant.data.random_photos import scene_name
from vggt_quant.evaluation.reference import load_outputs
from vggt_quant.inference.engine import Engine, moved_note, open_checkpoint, run_device
from vggt_quant.quantization.checkpoint import check, memory_bytes
from vggt_quant.results import growth
from vggt_quant.results.decibels import sqnr_db
from vggt_quant.results.intervals import median_interval
from vggt_quant.results.schema import ImagesResult, Packed, ReferenceResult
from vggt_quant.results.speed_schema import OutputSqnr, SizeResult, SweepResult
from vggt_quant.runtime import gpus, machine, memory
from vggt_quant.runtime.jobs import describe_error
from vggt_quant.runtime.provenance import kernel_libraries, provenance
from vggt_quant.runtime.tensor_file import read_tensors
from vggt_quant.variants import DEFAULT, RunSettings

CPU_REPEATS = Repeats(warmup=1, at_least=6, at_most=30)
CUDA_REPEATS = Repeats(warmup=1, at_least=8, at_most=100, warmup_seconds=0.5)
ONCE = Repeats(warmup=0, at_least=1, at_most=1)
FILL_TRIES, FEWER = 8, 0.96
"""How often a number is tried, and the share of images to go on with after one that did not fit."""
FILL_SECONDS = 60
"""A pass that would take longer is not run only to see whether it fits."""
log = logging.getLogger(__name__)


def repeats_for(device: str, count: int | None) -> Repeats:
    """How often a size is run on a device type; with a `count`, exactly that often."""
    usual = CUDA_REPEATS if device == "cuda" else CPU_REPEATS
    return dataclasses.replace(usual, at_least=count, at_most=count) if count else usual


def measure_sweep(
    images: ImagesResult,
    packed: Packed,
    device: str,
    run: RunSettings = DEFAULT,
    *,
    num_images: Sequence[int],
    repeats: int | None = None,
    reference: ReferenceResult | None = None,
    fill_memory_gib: Sequence[int] = (),
) -> SweepResult:
    """Load the packed model and time its forward pass on the first photos of the first scene, at each number of them.

    Args:
        images: Whose first scene has at least max(num_images) photos.
        packed: The checkpoint.
        device: Where to run, as `measure_speed` takes it.
        run: How to run.
        num_images: Sizes, in any order.
        repeats: Timed passes at each size; None takes `CPU_REPEATS` or `CUDA_REPEATS`.
        reference: Outputs in strict float32, to compare with at the sizes n that have a scene `scene_name(n)` in it.
        fill_memory_gib: Memories for which the number of images that should just fit is run, too, where this device is
            as large.

    Raises:
        ValueError: Too few photos.
        UnsupportedError: The device has no kernel for it, or does not support the run settings.
        CheckpointError: The checkpoint is damaged or gone.
        TensorFileError: So are the photos or the reference.
    """
    photos_N3HW = read_tensors(images.scenes[0].path)["images"]
    if max(num_images) > len(photos_N3HW):
        raise ValueError(f"There are {len(photos_N3HW)} photos, so they cannot be timed {max(num_images)} at a time.")
    target = run_device(packed.checkpoint, device)
    known = {scene.scene: scene.path for scene in reference.scenes} if reference else {}
    engine, load_seconds, load_peak = _load(packed, target, run)
    device_memory = _device_memory_bytes(target)
    # First: the last size may leave too little memory to count in.
    work = Work(engine, (photos_N3HW.shape[-2], photos_N3HW.shape[-1]))
    steps = [(photos_N3HW[:number], known.get(scene_name(number))) for number in sorted(set(num_images))]
    sizes = _measure_sizes(engine, steps, repeats_for(target, repeats))
    memories = [gib for gib in fill_memory_gib if gib * growth.GIB < device_memory]
    return SweepResult(
        variant=packed.variant,
        run=structs.asdict(run),
        image_size=list(photos_N3HW.shape[-2:]),
        compute_dtype=engine.compute_dtype,
        load_seconds=load_seconds,
        load_peak_memory_bytes=load_peak,
        weights_bytes=memory_bytes(engine.model),
        checkpoint_bytes=Path(packed.checkpoint).stat().st_size,
        memory_kind=MEMORY_KINDS[target],
        device_memory_bytes=device_memory,
        sizes=[_with_work(size, work) for size in sizes],
        filled=[_with_work(size, work) for size in _fill(engine, photos_N3HW, sizes, memories)],
        libraries=kernel_libraries(),
        note=moved_note(target, device),
        provenance=provenance(target),
    )


def _load(packed: Packed, device: str, run: RunSettings) -> tuple[Engine, float, int]:
    """The engine, the seconds and the peak memory of loading it."""
    check(packed.checkpoint)  # what is timed is loading, not looking for damage
    _forget_peak(device)
    started = time.perf_counter()
    engine = open_checkpoint(packed.checkpoint, device, run)
    engine.synchronize()
    return engine, time.perf_counter() - started, memory.peak_memory_bytes(device)


def _measure_sizes(engine: Engine, steps: list[tuple[Tensor, str | None]], repeats: Repeats) -> list[SizeResult]:
    """The sizes in ascending order, as (photos, reference outputs); from the first that does not fit none is tried."""
    sizes: list[SizeResult] = []
    for photos_N3HW, reference in steps:
        if sizes and sizes[-1].outcome != "ok":
            sizes.append(replace(sizes[-1], num_images=len(photos_N3HW)))
            continue
        size = _measure_size(engine, photos_N3HW, repeats, reference)
        sizes.append(size)
        log.info("%d images: %s", size.num_images, size.reason or f"{size.latency_ms_median:.2f} ms")
    return sizes


def _fill(engine: Engine, photos_N3HW: Tensor, sizes: list[SizeResult], memories_gib: list[int]) -> list[SizeResult]:
    """Run, once, the numbers of images that should just fit into a memory; a miss is corrected by what it showed."""
    filled: list[SizeResult] = []
    for gib in memories_gib:
        for _ in range(FILL_TRIES):
            known = [*sizes, *filled]
            fits, time_ms = growth.capacity(gib, known), growth.of_latency(known)
            number = math.ceil((fits.num_images or 0) * (FEWER if filled and _missed(filled[-1], gib) else 1))
            if fits.how == "measured" or not number or time_ms is None:
                break
            if growth.at(time_ms, number) > 1e3 * FILL_SECONDS:
                break
            times = math.ceil(number / len(photos_N3HW))
            with _held_to(gib, engine.device):
                size = _measure_size(engine, photos_N3HW.repeat(times, 1, 1, 1)[:number], ONCE, None)
            filled.append(replace(size, tried_gib=gib))
            log.info("%d images in %d GiB: %s", number, gib, size.reason or f"{size.peak_memory_bytes} bytes")
    return filled


def _missed(size: SizeResult, memory_gib: int) -> bool:
    return size.tried_gib == memory_gib and (size.peak_memory_bytes or math.inf) > memory_gib * growth.GIB


@contextlib.contextmanager
def _held_to(memory_gib: int, device: torch.device) -> Iterator[None]:
    """Let CUDA's allocator take no more from the driver than this, so that what it holds in reserve counts, too."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_per_process_memory_fraction(memory_gib * growth.GIB / _device_memory_bytes("cuda"))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _with_work(size: SizeResult, work: Work) -> SizeResult:
    return replace(size, operations=work.operations(size.num_images), least_bytes=work.least_bytes(size.num_images))


def _measure_size(engine: Engine, photos_N3HW: Tensor, repeats: Repeats, reference: str | None) -> SizeResult:
    gc.collect()
    _forget_peak(engine.device.type)
    try:
        return _time_size(engine, photos_N3HW, repeats, reference)
    except (MemoryError, RuntimeError) as exception:
        error = describe_error("speed", exception)
        if error.kind != "out_of_memory":
            raise
        # Only the sentence is kept: the exception holds on to the tensors of all frames that it went through.
        reason = f"out of memory at {len(photos_N3HW)} images: {error.message.splitlines()[0]}"
    return SizeResult(num_images=len(photos_N3HW), outcome="out_of_memory", reason=reason)


def _time_size(engine: Engine, photos_N3HW: Tensor, repeats: Repeats, reference: str | None) -> SizeResult:
    device = engine.device.type
    images_N3HW = photos_N3HW.to(engine.device)
    started = time.perf_counter()
    engine.run(images_N3HW)
    engine.synchronize()
    first_pass_seconds, first_peak = time.perf_counter() - started, memory.peak_memory_bytes(device)
    _forget_peak(device)
    latencies_ms, other_share = time_forward(engine, images_N3HW, repeats)
    gpu = gpus.gpu_state() if device == "cuda" else {}
    steady_peak = memory.peak_memory_bytes(device)
    low, high = median_interval(latencies_ms) or (None, None)
    return SizeResult(
        num_images=len(photos_N3HW),
        outcome="ok",
        first_pass_seconds=first_pass_seconds,
        latencies_ms=latencies_ms,
        latency_ms_median=statistics.median(latencies_ms),
        latency_ms_low=low,
        latency_ms_high=high,
        latency_ms_iqr=interquartile_range(latencies_ms) if len(latencies_ms) > 1 else None,
        peak_memory_bytes=max(first_peak, steady_peak),
        steady_peak_memory_bytes=steady_peak,
        reserved_memory_bytes=torch.cuda.max_memory_reserved() if device == "cuda" else None,
        kernels=dict(engine.kernels),
        other_processor_share=other_share,
        gpu=gpu,
        outputs=_compare(load_outputs(reference), engine.run(images_N3HW)) if reference else [],
    )


def _compare(reference: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[OutputSqnr]:
    """SQNR of each output tensor; what is echoed or a list (the poses of each iteration) is left out."""
    shared = sorted(name for name in reference.keys() & outputs.keys() if name != "images")
    return [_sqnr(name, reference[name], outputs[name].cpu()) for name in shared if isinstance(outputs[name], Tensor)]


def _sqnr(name: str, reference: Tensor, output: Tensor) -> OutputSqnr:
    if reference.shape != output.shape:
        reason = f"shape {list(output.shape)} instead of {list(reference.shape)}"
        return OutputSqnr(output=name, sqnr_db=None, identical=False, error=reason)
    ratio = sqnr_db(reference, output)
    is_identical = torch.equal(reference, output)
    error = None if math.isfinite(ratio) or is_identical else "not finite"
    return OutputSqnr(output=name, sqnr_db=ratio if math.isfinite(ratio) else None, identical=is_identical, error=error)


def _forget_peak(device: str) -> None:
    """Let the peak count from here; on CUDA give back what earlier sizes left unused, too."""
    if device == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # there is nothing to reset before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        memory.forget_peak_resident()


def _device_memory_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return machine.memory_bytes()
