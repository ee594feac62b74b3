"""Made-up sweeps for tests of what is drawn from them."""

import sample_results

from vggt_quant.report import speed_report
from vggt_quant.results.growth import GIB
from vggt_quant.results.schema import write
from vggt_quant.results.speed_schema import OutputSqnr, SizeResult, SweepResult

NUM_IMAGES = [1, 2, 5, 10, 20, 50, 100]
FIRST, SECOND = "2025-11-25T21:00:00+00:00", "2025-11-25T22:00:00+00:00"


def size(number, ms, peak_bytes, **changes):
    """What was measured on so many images."""
    return SizeResult(
        num_images=number,
        outcome="ok",
        latencies_ms=[ms] * 10,
        latency_ms_median=ms,
        latency_ms_low=0.99 * ms,
        latency_ms_high=1.01 * ms,
        latency_ms_iqr=0.01 * ms,
        peak_memory_bytes=int(peak_bytes),
        **changes,
    )


def sweep(variant, latency, memory_gib, *, started=FIRST, full_at=None, numbers=NUM_IMAGES, **changes):
    """Time `a + b n + c n^2` ms and peak `a + b n` GiB of n images; from `full_at` on the memory does not suffice."""
    sizes = []
    for n in numbers:
        if full_at and n >= full_at:
            reason = f"out of memory at {full_at} images: OutOfMemoryError: CUDA out of memory"
            sizes.append(SizeResult(num_images=n, outcome="out_of_memory", reason=reason))
            continue
        outputs = [
            OutputSqnr(output=name, sqnr_db=db, identical=False) for name, db in (("depth", 35), ("pose_enc", 31))
        ]
        ms = latency[0] + latency[1] * n + latency[2] * n**2
        peak = GIB * (memory_gib[0] + memory_gib[1] * n)
        sizes.append(size(n, ms, peak, outputs=outputs if n in (1, 5) else []))
    counts = {"filled": []} | changes
    return SweepResult(
        variant=variant,
        key="k",
        started=started,
        run={},
        image_size=[350, 518],
        compute_dtype="bfloat16",
        load_seconds=3.2,
        load_peak_memory_bytes=int(1.1 * memory_gib[0] * GIB),
        weights_bytes=int(memory_gib[0] * GIB),
        checkpoint_bytes=int(memory_gib[0] * GIB),
        memory_kind="cuda allocator",
        device_memory_bytes=80 * GIB,
        sizes=sizes,
        libraries={"triton": "3.6.0"},
        note=None,
        provenance=sample_results.provenance(),
        **counts,
    )


def write_sweeps(folder, sweeps, baselines):
    """Lay them out as `vggt-quant speed` does; returns the keys of all variants."""
    for one in sweeps:
        write(one, speed_report.sweep_path(folder, one.variant))
    for one in baselines:
        write(one, speed_report.baseline_path(folder, one.started))
    return {one.variant: "k" for one in sweeps}
