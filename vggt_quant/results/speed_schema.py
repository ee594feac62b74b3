"""The schema of cost against size: one variant timed on more and more images, and the table of all variants."""

from typing import Any, ClassVar, Literal

from vggt_quant.results.record import Measured, Record
from vggt_quant.results.schema import Error, MemoryKind, Provenance


class OutputSqnr(Record, frozen=True, kw_only=True):
    """How far one output of the timed engine is from strict float32."""

    output: str
    sqnr_db: Measured
    """10 log10 of signal power over error power; null when identical or not finite."""
    identical: bool
    error: str | None = None


class SizeResult(Record, frozen=True, kw_only=True):
    """Time, memory and deviation of the forward pass on one number of images."""

    num_images: int
    outcome: Literal["ok", "out_of_memory"]
    reason: str | None = None
    tried_gib: int | None = None
    """Run to see whether it fits into this many GiB, to which CUDA's allocator was limited."""
    first_pass_seconds: Measured = None
    """The very first pass, with all that is compiled, tuned and captured for this size."""
    latencies_ms: list[float] = []
    latency_ms_median: Measured = None
    latency_ms_low: Measured = None
    latency_ms_high: Measured = None
    """Ends of the 95 % bootstrap interval of the median; null for fewer than six passes."""
    latency_ms_iqr: Measured = None
    peak_memory_bytes: int | None = None
    """Peak at this size, its first pass included: what the machine must have. Not the peak of loading."""
    steady_peak_memory_bytes: int | None = None
    """Peak of the timed passes alone; what a CUDA graph holds does not count in it."""
    reserved_memory_bytes: int | None = None
    """Peak of what CUDA's allocator took from the driver at this size."""
    kernels: dict[str, str] = {}
    """Format or part -> the kernel that ran at this size."""
    operations: dict[str, int] = {}
    """Arithmetic -> operations of all products of a pass, a multiplication and its addition being two."""
    least_bytes: int | None = None
    """Weights as they are stored, images and outputs, each once."""
    other_processor_share: Measured = None
    gpu: dict[str, float] = {}
    """Clocks, temperature and power right after the timed passes, unit in the key."""
    outputs: list[OutputSqnr] = []
    """Against strict float32, where that was asked for at this size."""


class SweepResult(Record, frozen=True, kw_only=True, tag_field="outcome", tag="ok"):
    """One variant in one fresh process, loaded once and timed on more and more images."""

    outcome: ClassVar[Literal["ok"]] = "ok"
    variant: str
    key: str | None = None
    """Hash of all that decides these figures; null outside a table."""
    started: str | None = None
    """When the run of the whole table started that this belongs to: speedups compare within one run."""
    run: dict[str, Any]
    """How the checkpoint was run: the fields of `variants.RunSettings`."""
    image_size: list[int]
    compute_dtype: str
    load_seconds: float
    load_peak_memory_bytes: int
    weights_bytes: int
    checkpoint_bytes: int
    memory_kind: MemoryKind
    device_memory_bytes: int
    sizes: list[SizeResult]
    filled: list[SizeResult]
    """Numbers of images that should just fit into some memory, run once each to see."""
    libraries: dict[str, str]
    """Versions of the libraries with kernels that are installed."""
    note: str | None
    provenance: Provenance


class Growth(Record, frozen=True, kw_only=True):
    """constant + linear n + quadratic n^2 of the number of images n, fitted to relative errors, no term negative."""

    constant: float
    linear: float
    quadratic: float


class Capacity(Record, frozen=True, kw_only=True):
    """The largest number of images that fits into a memory."""

    memory_gib: int
    num_images: int | None
    """0 if not even one image fits; null if it is unknown."""
    how: Literal["fitted", "measured"]
    """`measured`: this very number was run and fits, and 5 % more (of few images one more) do not; `fitted`: from the
    growth of the peak."""


class Cell(Record, frozen=True, kw_only=True):
    """One variant at one number of images, compared with the baseline of the same session."""

    num_images: int
    outcome: Literal["ok", "out_of_memory"]
    reason: str | None
    latency_ms_median: Measured = None
    latency_ms_low: Measured = None
    latency_ms_high: Measured = None
    peak_memory_bytes: int | None = None
    speedup_vs_bf16: Measured = None
    """Median of our bf16 engine in the same session over this median."""
    apart_from_bf16: bool | None = None
    """Whether the two intervals do not touch."""
    least_ms: Measured = None
    """What this GPU would take at its maker's rates; null where nothing was counted, or the rates are not known."""
    roofline_share: Measured = None
    """That over the median, 0 to 1."""
    worst_output: str | None = None
    worst_sqnr_db: Measured = None
    """The lowest SQNR of any output against strict float32; null where not compared, or all are identical."""
    identical: bool | None = None


class SpeedRow(Record, frozen=True, kw_only=True):
    """One variant of the table."""

    variant: str
    outcome: Literal["ok", "unsupported", "failed", "missing"]
    """`missing`: not measured yet."""
    error: Error | None
    sweep: SweepResult | None
    """Everything that was measured; null where the outcome is not ok."""
    cells: list[Cell] = []
    latency_growth_ms: Growth | None = None
    memory_growth_bytes: Growth | None = None
    capacities: list[Capacity] = []


class SpeedTable(Record, frozen=True, kw_only=True):
    """speed_table.json: cost against the number of images, variant by variant."""

    label: str
    """What the weights are."""
    image_size: list[int]
    num_images: list[int]
    device: str
    rows: list[SpeedRow]
    baselines: list[SweepResult]
    """Our bf16 engine, measured once in each session that a row belongs to."""
    created: str
