"""Time and memory of the whole forward pass: checkpoint + shapes -> SpeedResult.

The caller starts a fresh process per measurement, so neither a warm cache nor another variant's memory affects it. A
warm-up comes first, and the device is synchronised around every repeat. The result keeps the median, the interquartile
range and all single times. Peak memory covers loading and running: CUDA's allocator peak, or the process's largest
resident set. Other programs spoil times, so their share of the processors is measured and reported in the row.
"""

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec import structs

from vggt_quant.inference.engine import Engine, moved_note, open_checkpoint, run_device
from vggt_quant.quantization.checkpoint import check, memory_bytes
from vggt_quant.results.schema import ImagesResult, MemoryKind, Packed, SpeedResult
from vggt_quant.runtime import machine, memory
from vggt_quant.runtime.progress import track
from vggt_quant.runtime.provenance import provenance
from vggt_quant.runtime.tensor_file import read_tensors
from vggt_quant.variants import DEFAULT, RunSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """How often the forward pass runs: `at_least` times, then on until `seconds` are over or it was `at_most` times."""

    warmup: int
    at_least: int
    at_most: int
    seconds: float = 3.0
    warmup_seconds: float = 0.0
    """The warm-up goes on until these are over, too: a GPU needs some time to raise its clocks."""


CPU_REPEATS = Repeats(warmup=2, at_least=5, at_most=30)
CUDA_REPEATS = Repeats(warmup=5, at_least=20, at_most=100)
MEMORY_KINDS: dict[str, MemoryKind] = {"cuda": "cuda allocator", "cpu": "resident set"}
"""What peak memory means, by device type."""
QUIET_SHARE = 0.1
"""Other programs may use this share of the processors before a row reports it."""


def measure_speed(images: ImagesResult, packed: Packed, device: str, run: RunSettings = DEFAULT) -> SpeedResult:
    """Load the packed model, warm it up, and time its forward pass on the photos of the first scene.

    Raises:
        UnsupportedError: The device has no kernel for it, or does not support the run settings.
        CheckpointError: The checkpoint is damaged or gone.
        TensorFileError: So are the photos.
    """
    target = run_device(packed.checkpoint, device)
    check(packed.checkpoint)  # what is timed is loading, not looking for damage
    resident_before = memory.resident_bytes()
    started = time.perf_counter()
    engine = open_checkpoint(packed.checkpoint, target, run)
    engine.synchronize()
    load_seconds = time.perf_counter() - started
    images_N3HW = read_tensors(images.scenes[0].path, target)["images"]
    repeats = CUDA_REPEATS if target == "cuda" else CPU_REPEATS
    latencies_ms, other_share = time_forward(engine, images_N3HW, repeats)
    return SpeedResult(
        variant=packed.variant,
        run=structs.asdict(run),
        shape=list(images_N3HW.shape),
        compute_dtype=engine.compute_dtype,
        kernels=dict(engine.kernels),
        warmup_runs=repeats.warmup,
        latencies_ms=latencies_ms,
        latency_ms_median=statistics.median(latencies_ms),
        latency_ms_iqr=interquartile_range(latencies_ms),
        load_seconds=load_seconds,
        weights_bytes=memory_bytes(engine.model),
        checkpoint_bytes=Path(packed.checkpoint).stat().st_size,
        peak_memory_bytes=memory.peak_memory_bytes(target),
        peak_memory_kind=MEMORY_KINDS[target],
        resident_before_bytes=resident_before,
        other_processor_share=other_share,
        note="; ".join(_notes(target, device, other_share)) or None,
        provenance=provenance(target),
    )


def _notes(target: str, device: str, other_share: float) -> list[str]:
    notes = [note for note in [moved_note(target, device)] if note]
    if other_share > QUIET_SHARE:
        notes.append(
            f"other programs used {other_share:.0%} of the processors meanwhile: time it again on a quiet machine"
        )
    return notes


def time_forward(engine: Engine, images_N3HW: torch.Tensor, repeats: Repeats) -> tuple[list[float], float]:
    """Milliseconds of each pass, from an idle device to an idle device; and how busy others kept the processors."""
    _warm_up(engine, images_N3HW, repeats)
    latencies_ms: list[float] = []
    machine_before, own_before = machine.busy_seconds()
    begun = time.perf_counter()
    for _ in track(range(repeats.at_most), "timed passes"):
        engine.synchronize()
        latencies_ms.append(_pass_ms(engine, images_N3HW))
        if len(latencies_ms) >= repeats.at_least and time.perf_counter() - begun > repeats.seconds:
            break
    elapsed = time.perf_counter() - begun
    machine_after, own_after = machine.busy_seconds()
    others = (machine_after - machine_before) - (own_after - own_before)
    return latencies_ms, max(0.0, others / (elapsed * (os.cpu_count() or 1)))


def _warm_up(engine: Engine, images_N3HW: torch.Tensor, repeats: Repeats) -> None:
    begun, count = time.perf_counter(), 0
    while count < repeats.warmup or time.perf_counter() - begun < repeats.warmup_seconds:
        engine.run(images_N3HW)
        count += 1
        if repeats.warmup_seconds:
            engine.synchronize()  # else the clock sees how fast work is handed over, not how fast it is done


def _pass_ms(engine: Engine, images_N3HW: torch.Tensor) -> float:
    """One pass on an idle device, to its end: by CUDA's own clock, else by the machine's."""
    if engine.device.type != "cuda":
        started = time.perf_counter()
        engine.run(images_N3HW)
        engine.synchronize()
        return 1e3 * (time.perf_counter() - started)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch has no type for it
    begin.record()
    engine.run(images_N3HW)
    end.record()
    engine.synchronize()
    return float(begin.elapsed_time(end))


def interquartile_range(values: list[float]) -> float:
    """Distance between the quartiles, the ends included."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low
