"""THE schema of every result file. Standard library only, so that a laptop without torch can read and redraw them.

One dataclass per file; `write` stores it whole or not at all, `read` checks it, `json_schema` exports it. The unit
stands in the key (`latency_ms_median`, `peak_memory_bytes`); what is unknown or infinite is `null`, never NaN.
"""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vggt_quant.results.files import write_text
from vggt_quant.results.scene_schema import OutputInfo, SceneAccuracy, SceneImages, SceneReference
from vggt_quant.results.typed_json import build

SCHEMA_VERSION = 2
Result = typing.TypeVar("Result")
Outcome = Literal["ok", "unsupported", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where and with what a file was made."""

    package_version: str
    commit: str | None
    """Commit of the checkout that ran, `-dirty` appended if it had changes; null outside a checkout."""
    python: str
    torch: str
    device: str
    """`cpu` or `cuda`: where the numbers of this file were measured."""
    device_name: str
    device_capability: str | None
    cuda: str | None
    driver: str | None
    cpu_threads: int
    created: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResult:
    """Which model is compared."""

    name: str
    label: str
    """What every row calls the weights: the model's name, or `random weights (seed N)`."""
    random_weights: bool
    weights_sha256: str
    num_parameters: int
    config: dict[str, Any]
    revision: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesResult:
    """Which photos are compared on (images.json), or calibrated with (calibration.json): one entry a scene."""

    folder: str
    """As asked for, `drawn` for rooms that the project draws itself."""
    mode: Literal["crop", "pad"]
    scenes: list[SceneImages]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceResult:
    """The fp32 outputs that every variant is compared with, in the order of the scenes."""

    scenes: list[SceneReference]
    outputs: dict[str, OutputInfo]
    """What the model gives, with the shapes of the first scene."""
    seconds: float
    provenance: Provenance


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptLayer:
    """A linear layer that stays in higher precision, and why."""

    name: str
    reason: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Error:
    """What went wrong, for people first."""

    stage: str
    kind: Literal["exception", "input", "out_of_memory", "signal", "unsupported"]
    message: str
    traceback: str | None
    exit_code: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """The record that every job leaves beside its log, above all when it fails."""

    stage: str
    variant: str | None
    outcome: Outcome
    error: Error | None
    seconds: float
    command: list[str]
    created: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeResult:
    """A packed checkpoint: where it lies, what it weighs, what is in it."""

    variant: str
    outcome: Outcome
    error: Error | None
    spec: dict[str, Any]
    key: str | None = None
    checkpoint: str | None = None
    cached: bool | None = None
    checkpoint_bytes: int | None = None
    weights_bytes: int | None = None
    """Every parameter, buffer and packed object of the model in memory, shared storage counted once."""
    num_parameters: int | None = None
    quantized_parameters: int | None = None
    quantized_share: float | None = None
    bytes_per_quantized_weight_memory: float | None = None
    bytes_per_quantized_weight_disk: float | None = None
    formats: dict[str, int] = field(default_factory=dict)
    """Number of layers in each format; `dense` are linear layers that were kept."""
    kept: list[KeptLayer] = field(default_factory=list)
    weight_sqnr_db_median: float | None = None
    weight_sqnr_db_min: float | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyResult:
    """Deviation from fp32 on the same photos, and from the truth where that is known, scene by scene."""

    variant: str
    outcome: Outcome
    error: Error | None
    label: str
    run: dict[str, Any] = field(default_factory=dict)
    """How the checkpoint was run: the fields of `variants.Run`."""
    scenes: list[SceneAccuracy] = field(default_factory=list)
    note: str | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedResult:
    """Time and memory of the whole forward pass in a fresh process."""

    variant: str
    outcome: Outcome
    error: Error | None
    run: dict[str, Any] = field(default_factory=dict)
    """How the checkpoint was run: the fields of `variants.Run`."""
    shape: list[int] = field(default_factory=list)
    compute_dtype: str | None = None
    kernels: dict[str, str] = field(default_factory=dict)
    """Format -> the kernel that really ran."""
    warmup_runs: int | None = None
    latencies_ms: list[float] = field(default_factory=list)
    latency_ms_median: float | None = None
    latency_ms_iqr: float | None = None
    load_seconds: float | None = None
    weights_bytes: int | None = None
    checkpoint_bytes: int | None = None
    peak_memory_bytes: int | None = None
    peak_memory_kind: Literal["cuda allocator", "resident set"] | None = None
    resident_before_bytes: int | None = None
    """Resident set of the process before the model was loaded: Python and torch alone."""
    other_processor_share: float | None = None
    """Share of the machine's processors that other programs used while this was timed."""
    note: str | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One figure of a variant over scenes: its mean, how sure that is, and how it differs from fp32's.

    Intervals are 95 % bootstrap intervals over scenes. One scene has none; without fp32 there is no difference.
    """

    mean: float
    num_scenes: int
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    """Mean over scenes of this variant's figure minus fp32's on the same scene."""
    difference_low: float | None = None
    difference_high: float | None = None
    within_noise: bool | None = None
    """Whether zero lies inside the difference's interval: the variant may as well be no different from fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRow:
    """One variant in the comparison: every figure, or the error where it failed."""

    variant: str
    outcome: Outcome
    error: Error | None
    quantize: QuantizeResult | None = None
    accuracy: AccuracyResult | None = None
    speed: SpeedResult | None = None
    compression_vs_fp32: float | None = None
    """fp32 checkpoint bytes over this variant's."""
    speedup_vs_fp32: float | None = None
    speedup_vs_bf16: float | None = None
    """Ratios of median latencies; null when the two were not measured on the same device."""
    deviation: dict[str, Estimate] = field(default_factory=dict)
    """Figures of `SceneAccuracy` (how far from fp32) over all scenes, by their names."""
    truth: dict[str, Estimate] = field(default_factory=dict)
    """Figures of `TruthAccuracy` (how far from the truth) over the scenes whose truth tells, by their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonReport:
    """comparison_report.json: the whole comparison in one file."""

    partial: bool
    """True when a variant failed and the run goes on later."""
    model: ModelResult | None
    images: ImagesResult | None
    calibration: ImagesResult | None
    """Scenes for methods that calibrate; no photo of them is among `images`. Null when none are configured."""
    reference: ReferenceResult | None
    methods: list[MethodRow]
    recommendation: str
    errors: list[Error]
    """Errors of steps that belong to no variant, e.g. the fp32 reference."""
    schema_version: int = SCHEMA_VERSION
    created: str = ""


RESULT_TYPES = (
    ModelResult,
    ImagesResult,
    ReferenceResult,
    Status,
    QuantizeResult,
    AccuracyResult,
    SpeedResult,
    ComparisonReport,
)


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it (NaN, infinity)."""
    return float(value) if math.isfinite(value) else None


def write(result: Any, path: Path | str) -> None:
    """Write a result as JSON, whole or not at all; a NaN or infinity inside is a ValueError."""
    write_text(json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False) + "\n", path)


def read(cls: type[Result], path: Path | str) -> Result:
    """Read a result file of type `cls`; a file of another shape is a ValueError that names the file and the field."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return build(cls, data)
    except (json.JSONDecodeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a {cls.__name__}: {error}; delete it and run again.") from error
