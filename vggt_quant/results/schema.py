"""The schema of every result file. Files can be read and drawn again on a machine without torch.

One record per file; `write` stores it whole or not at all, `read` checks it. The unit stands
in the key (`latency_ms_median`, `peak_memory_bytes`); what is unknown or infinite is `null`, never NaN.

The result of a step for one variant is one of three records, distinguished by `outcome`: the figures (`ok`),
`Unsupported` or `Failed`. Every file begins with `schema_version`.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import msgspec

from vggt_quant.results.files import write_text
from vggt_quant.results.metric import Figures, Group, Metrics
from vggt_quant.results.record import Measured, Record
from vggt_quant.results.scene_schema import OutputInfo, SceneAccuracy, SceneImages, SceneReference
from vggt_quant.results.validation import build

SCHEMA_VERSION = 3
Result = TypeVar("Result", bound=Record)
Outcome = Literal["ok", "unsupported", "failed"]
MemoryKind = Literal["cuda allocator", "resident set"]


class OtherVersionError(ValueError):
    """A result file that another version of this package wrote."""


class Provenance(Record, frozen=True, kw_only=True):
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


class ModelResult(Record, frozen=True, kw_only=True):
    """Which model is compared."""

    name: str
    label: str
    """What every row calls the weights: the model's name, or `random weights (seed N)`."""
    random_weights: bool
    weights_sha256: str
    num_parameters: int
    config: dict[str, Any]
    revision: str | None


class ImagesResult(Record, frozen=True, kw_only=True):
    """Which photos are compared on (images.json), or calibrated with (calibration.json): one entry a scene."""

    folder: str
    """As asked for, `drawn` for rooms that the project draws itself."""
    mode: Literal["crop", "pad"]
    scenes: list[SceneImages]


class ReferenceResult(Record, frozen=True, kw_only=True):
    """The fp32 outputs that every variant is compared with, in the order of the scenes."""

    scenes: list[SceneReference]
    outputs: dict[str, OutputInfo]
    """What the model gives, with the shapes of the first scene."""
    seconds: float
    provenance: Provenance


class KeptLayer(Record, frozen=True, kw_only=True):
    """A linear layer that stays in higher precision, and why."""

    name: str
    reason: str
    num_parameters: int


class Error(Record, frozen=True, kw_only=True):
    """What went wrong, for people first."""

    stage: str
    kind: Literal["exception", "input", "out_of_memory", "signal", "unsupported"]
    message: str
    traceback: str | None
    exit_code: int | None


class Status(Record, frozen=True, kw_only=True):
    """The record that every job leaves with its log, above all when it fails."""

    stage: str
    variant: str | None
    outcome: Outcome
    error: Error | None
    seconds: float
    command: list[str]
    created: str


class Unsupported(Record, frozen=True, kw_only=True, tag_field="outcome", tag="unsupported"):
    """A step that this machine cannot do for a variant, and why."""

    outcome: ClassVar[Literal["unsupported"]] = "unsupported"
    variant: str
    error: Error
    key: str | None = None
    """Hash of all that decides the result, where the step keeps one."""
    started: str | None = None
    """As in `SweepResult`."""


class Failed(Record, frozen=True, kw_only=True, tag_field="outcome", tag="failed"):
    """A step that failed for a variant, and why."""

    outcome: ClassVar[Literal["failed"]] = "failed"
    variant: str
    error: Error
    key: str | None = None
    """As in `Unsupported`."""
    started: str | None = None
    """As in `SweepResult`."""


class Making(Record, frozen=True, kw_only=True):
    """What was measured while a checkpoint was made; its header keeps it, because the file alone does not tell it."""

    weight_sqnr_db_median: Measured
    weight_sqnr_db_min: Measured
    """Null where nothing is quantized, or nothing is lost."""
    seconds: float
    peak_memory_bytes: int
    provenance: Provenance


class QuantizeResult(Making, frozen=True, kw_only=True, tag_field="outcome", tag="ok"):
    """A packed checkpoint: where it lies, what it weighs, what is in it."""

    outcome: ClassVar[Literal["ok"]] = "ok"
    spec: dict[str, Any]
    """Method, its settings and the policy: what decides the weights."""
    weights_bytes: int
    """Every parameter, buffer and packed object of the model in memory, shared storage counted once."""
    num_parameters: int
    quantized_parameters: int
    quantized_share: float
    bytes_per_quantized_weight_memory: Measured
    """Null where nothing is quantized."""
    formats: dict[str, int]
    """Number of layers in each format; `dense` are linear layers that were kept."""
    kept: list[KeptLayer]
    variant: str
    key: str
    checkpoint: str
    cached: bool
    checkpoint_bytes: int
    bytes_per_quantized_weight_disk: Measured
    """Null where nothing is quantized."""


class Packed(Protocol):
    """A packed checkpoint to be measured: a `QuantizeResult`, or a `PackedFile` where there is only the file."""

    @property
    def variant(self) -> str:
        """What the row is called."""

    @property
    def checkpoint(self) -> str:
        """Path of the file."""


class PackedFile(Record, frozen=True, kw_only=True):
    """A packed checkpoint of which nothing but the file is at hand."""

    variant: str
    checkpoint: str


class AccuracyResult(Record, frozen=True, kw_only=True, tag_field="outcome", tag="ok"):
    """Deviation from fp32 on the same photos, and from the truth where that is known, scene by scene."""

    outcome: ClassVar[Literal["ok"]] = "ok"
    variant: str
    label: str
    run: dict[str, Any]
    """How the checkpoint was run: the fields of `variants.RunSettings`."""
    metrics: Metrics | None
    """What the figures of the scenes are. Null in a report, which says it once for all variants."""
    scenes: list[SceneAccuracy]
    note: str | None
    provenance: Provenance

    def __post_init__(self) -> None:
        """Refuse figures that `metrics` does not name."""
        if self.metrics is not None:
            expect_known(self.scenes, self.metrics)


class SpeedResult(Record, frozen=True, kw_only=True, tag_field="outcome", tag="ok"):
    """Time and memory of the whole forward pass in a fresh process."""

    outcome: ClassVar[Literal["ok"]] = "ok"
    variant: str
    run: dict[str, Any]
    """How the checkpoint was run: the fields of `variants.RunSettings`."""
    shape: list[int]
    compute_dtype: str
    kernels: dict[str, str]
    """Format -> the kernel that really ran."""
    warmup_runs: int
    latencies_ms: list[float]
    latency_ms_median: float
    latency_ms_iqr: float
    load_seconds: float
    weights_bytes: int
    checkpoint_bytes: int
    peak_memory_bytes: int
    peak_memory_kind: MemoryKind
    resident_before_bytes: int
    """Resident set of the process before the model was loaded: Python and torch alone."""
    other_processor_share: Measured
    """Share of the machine's processors that other programs used while this was timed."""
    note: str | None
    provenance: Provenance


def expect_known(scenes: list[SceneAccuracy], metrics: Metrics) -> None:
    """Raise ValueError if a scene has a figure of a metric that `metrics` does not describe."""
    for scene in scenes:
        groups: dict[Group, Figures] = {"deviation": scene.deviation, "truth": scene.truth or {}}
        for group, figures in groups.items():
            if unknown := figures.keys() - metrics.get(group, {}).keys():
                raise ValueError(f"scene {scene.scene} has {group} figures that no metric describes: {sorted(unknown)}")


def write(result: Record, path: Path | str) -> None:
    """Write a result as JSON, whole or not at all; a NaN or infinity inside is a ValueError."""
    write_text(as_text(result), path)


def as_text(result: Record) -> str:
    """A result as the JSON of its file; a NaN or infinity inside is a ValueError."""
    data = {"schema_version": SCHEMA_VERSION, **msgspec.to_builtins(result)}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read(cls: type[Result], path: Path | str) -> Result:
    """Read a result file of type `cls`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another type or of another version of this package, or damaged; the sentence names the file
            and the field.
    """
    return cast(Result, _read(cls, cls.__name__, path))


def read_outcome(cls: type[Result], path: Path | str) -> Result | Unsupported | Failed:
    """Read what a step did for a variant: a `cls`, or why there is none; raises as `read` does."""
    return cast("Result | Unsupported | Failed", _read(cls | Unsupported | Failed, cls.__name__, path))


def _read(kind: Any, name: str, path: Path | str) -> Any:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(name, path, error) from error
    version = data.pop("schema_version", None) if isinstance(data, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        written = "an older version" if version is None or version in range(SCHEMA_VERSION) else "another version"
        raise OtherVersionError(
            f"{path} is a result of {written} of vggt_quant; delete it and run again to measure again."
        )
    try:
        return build(kind, data)
    except ValueError as error:
        raise _damaged(name, path, error) from error


def _damaged(name: str, path: Path | str, error: ValueError) -> ValueError:
    return ValueError(f"{path} is not a valid {name}: {str(error).rstrip('.')}; delete it and run again.")
