"""What result files say of cost against size: one variant timed on more and more images, and the table of them all.

Part of THE schema, as `scene_schema` is. Standard library only.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from vggt_quant.results.schema import Error, Outcome, Provenance


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSqnr:
    """How far one output of the timed engine is from strict float32."""

    output: str
    sqnr_db: float | None
    """10 log10 of signal power over error power; null when identical or not finite."""
    identical: bool
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeResult:
    """Time, memory and deviation of the forward pass on one number of images."""

    num_images: int
    outcome: Literal["ok", "out_of_memory"]
    reason: str | None = None
    tried_gib: int | None = None
    """Run to see whether it fits into so many GiB; CUDA's allocator was held to them."""
    first_pass_seconds: float | None = None
    """The very first pass, with all that is compiled, tuned and captured for this size."""
    latencies_ms: list[float] = field(default_factory=list)
    latency_ms_median: float | None = None
    latency_ms_low: float | None = None
    latency_ms_high: float | None = None
    """Ends of the 95 % bootstrap interval of the median; null for fewer than six passes."""
    latency_ms_iqr: float | None = None
    peak_memory_bytes: int | None = None
    """Peak at this size, its first pass included: what the machine must have. Not the peak of loading."""
    steady_peak_memory_bytes: int | None = None
    """Peak of the timed passes alone; what a CUDA graph holds does not count in it."""
    reserved_memory_bytes: int | None = None
    """Peak of what CUDA's allocator took from the driver at this size."""
    kernels: dict[str, str] = field(default_factory=dict)
    """Format or part -> the kernel that ran at this size."""
    operations: dict[str, int] = field(default_factory=dict)
    """Arithmetic -> operations of all products of a pass, a multiplication and its addition being two."""
    least_bytes: int | None = None
    """Weights as they are stored, images and outputs, each once."""
    other_processor_share: float | None = None
    gpu: dict[str, float] = field(default_factory=dict)
    """Clocks, temperature and power right behind the timed passes, unit in the key."""
    outputs: list[OutputSqnr] = field(default_factory=list)
    """Against strict float32, where that was asked for at this size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """One variant in one fresh process, loaded once and timed on more and more images."""

    variant: str
    outcome: Outcome
    error: Error | None
    key: str | None = None
    """Hash of all that decides these figures."""
    started: str | None = None
    """When the run of the whole table started that this belongs to: speedups compare within one run."""
    run: dict[str, Any] = field(default_factory=dict)
    """How the checkpoint was run: the fields of `variants.Run`."""
    image_size: list[int] = field(default_factory=list)
    compute_dtype: str | None = None
    load_seconds: float | None = None
    load_peak_memory_bytes: int | None = None
    weights_bytes: int | None = None
    checkpoint_bytes: int | None = None
    memory_kind: Literal["cuda allocator", "resident set"] | None = None
    device_memory_bytes: int | None = None
    sizes: list[SizeResult] = field(default_factory=list)
    filled: list[SizeResult] = field(default_factory=list)
    """Numbers of images that should just fit into some memory, run once each to see."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries with kernels that are installed."""
    note: str | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """constant + linear n + quadratic n^2 of the number of images n, fitted to relative errors, no term negative."""

    constant: float
    linear: float
    quadratic: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The largest number of images that fits into a memory."""

    memory_gib: int
    num_images: int | None
    """0 where not even one fits; null where nobody can tell."""
    how: Literal["fitted", "measured"]
    """`measured`: this very number was run and fits, and 5 % more (of few images one more) do not; `fitted`: from the
    growth of the peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One variant at one number of images, beside the baseline of the same run."""

    num_images: int
    outcome: Literal["ok", "out_of_memory"]
    reason: str | None
    latency_ms_median: float | None = None
    latency_ms_low: float | None = None
    latency_ms_high: float | None = None
    peak_memory_bytes: int | None = None
    speedup_vs_bf16: float | None = None
    """Median of the own bf16 engine in the same run over this median."""
    apart_from_bf16: bool | None = None
    """Whether the two intervals do not touch."""
    least_ms: float | None = None
    """What this GPU would take at its maker's rates; null where nothing was counted, or the rates are not known."""
    roofline_share: float | None = None
    """That over the median, 0 to 1."""
    worst_output: str | None = None
    worst_sqnr_db: float | None = None
    """The lowest SQNR of any output against strict float32; null where not compared, or all are identical."""
    identical: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedRow:
    """One variant of the table."""

    variant: str
    outcome: Outcome
    error: Error | None
    sweep: SweepResult | None
    """Everything that was measured."""
    cells: list[Cell] = field(default_factory=list)
    latency_growth_ms: Growth | None = None
    memory_growth_bytes: Growth | None = None
    capacities: list[Capacity] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedTable:
    """speed_table.json: cost against the number of images, variant by variant."""

    label: str
    """What the weights are."""
    image_size: list[int]
    num_images: list[int]
    device: str
    rows: list[SpeedRow]
    baselines: list[SweepResult]
    """The own bf16 engine, measured once in each run that any row is of."""
    created: str
