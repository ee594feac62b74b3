"""Gather the results of every step into one comparison: JSON for programs, a table and a picture for people.

Result files hold what was measured, status files what failed. A variant with neither gets a row that names the step
that did not run. So every run leaves a report, with a row for every variant. Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from vggt_quant.report.comparison_table import summary
from vggt_quant.report.estimates import with_estimates
from vggt_quant.report.figures import comparison_plots
from vggt_quant.report.recommendation import recommendation
from vggt_quant.report.rows import (
    BF16_VARIANT,
    REFERENCE_VARIANT,
    checkpoint_bytes,
    find_variant,
    judged,
    speedup,
    timed,
)
from vggt_quant.results.files import write_text
from vggt_quant.results.metric import Metrics
from vggt_quant.results.record import Record
from vggt_quant.results.report_schema import ComparisonReport, VariantRow
from vggt_quant.results.schema import (
    AccuracyResult,
    Error,
    Failed,
    ImagesResult,
    ModelResult,
    OtherVersionError,
    Outcome,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    Status,
    Unsupported,
    read,
    read_outcome,
    write,
)
from vggt_quant.runtime.provenance import now

SHARED_STAGES: dict[str, type[Record]] = {
    "model": ModelResult,
    "images": ImagesResult,
    "calibration": ImagesResult,
    "reference": ReferenceResult,
}
VARIANT_STAGES: dict[str, type[Record]] = {"quantize": QuantizeResult, "accuracy": AccuracyResult, "speed": SpeedResult}
Statuses = dict[tuple[str, str | None], Status]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What one step left, of all variants or of one."""

    outcome: Outcome
    result: Any = None
    error: Error | None = None
    is_missing: bool = False
    is_foreign: bool = False
    """Whether another version of this package wrote it."""


def collect(
    results_dir: Path | str,
    logs_dir: Path | str,
    variants: list[str],
    *,
    partial: bool = False,
    calibration: Path | None = None,
) -> ComparisonReport:
    """Read every result and status file.

    Args:
        results_dir: Holds `{model,images,reference}.json` and `{quantize,accuracy,speed}/<variant>.json`.
        logs_dir: Searched in depth for `*.status.json`; may be absent.
        variants: One row each, in this order.
        partial: The run goes on later.
        calibration: The result of that step, where the run has one.
    """
    results_dir = Path(results_dir)
    statuses, errors, foreign = _read_statuses(Path(logs_dir))
    paths = {stage: results_dir / f"{stage}.json" for stage in SHARED_STAGES} | {"calibration": calibration}
    shared = {
        stage: _read_stage(cls, path, stage, statuses.get((stage, None)))
        for stage, cls in SHARED_STAGES.items()
        if (path := paths[stage])
    }
    foreign += [path for stage, found in shared.items() if found.is_foreign and (path := paths[stage])]
    errors += [found.error for found in shared.values() if found.error and not found.is_foreign]
    errors += [_of_another_version(foreign)] if foreign else []
    rows = _with_ratios([_collect_row(results_dir, variant, statuses) for variant in variants])
    metrics, rows = _described_once(rows)
    rows = with_estimates(rows, metrics)
    model = shared["model"].result
    return ComparisonReport(
        partial=partial,
        model=model,
        images=shared["images"].result,
        calibration=shared["calibration"].result if calibration else None,
        reference=shared["reference"].result,
        metrics=metrics,
        variants=rows,
        recommendation=recommendation(rows, metrics, random_weights=bool(model and model.random_weights)),
        errors=errors,
        created=now(),
    )


def write_report(
    results_dir: Path | str, logs_dir: Path | str, variants: list[str], out_dir: Path | str, **settings: Any
) -> ComparisonReport:
    """Write comparison_report.json, comparison_summary.txt and comparison_plots.png, each whole or not at all.

    Args:
        results_dir: As for `collect`, and so are the others.
        logs_dir: Likewise.
        variants: Likewise.
        out_dir: Where the three files go.
        settings: `partial` and `calibration`.
    """
    out_dir = Path(out_dir)
    report = collect(results_dir, logs_dir, variants, **settings)
    write(report, out_dir / "comparison_report.json")
    write_text(summary(report), out_dir / "comparison_summary.txt")
    comparison_plots(report, out_dir / "comparison_plots.png")
    return report


def _read_statuses(logs_dir: Path) -> tuple[Statuses, list[Error], list[Path]]:
    """The latest status of each step, errors of steps without variant and result, and files of another version."""
    statuses: Statuses = {}
    errors, foreign = [], []
    for path in sorted(logs_dir.rglob("*.status.json")):
        try:
            status = read(Status, path)
        except OtherVersionError:
            foreign.append(path)
            continue
        except ValueError as error:
            errors.append(_input_error("report", str(error)))
            continue
        key = (status.stage, status.variant)
        if key not in statuses or statuses[key].created <= status.created:
            statuses[key] = status
    known = {*SHARED_STAGES, *VARIANT_STAGES, "report"}
    others = [s for (stage, _), s in statuses.items() if stage not in known and s.outcome == "failed"]
    return statuses, errors + [_error_of(status.stage, status.error) for status in others], foreign


def _of_another_version(paths: list[Path]) -> Error:
    """One sentence for all such files."""
    count = f"{paths[-1]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])
    return _input_error("report", f"run compare again to measure again what another version wrote: {count}.")


def _read_stage(cls: type[Record], path: Path, stage: str, status: Status | None) -> _Found:
    """A result file, unless the step failed after it was written."""
    if not path.exists():
        if status and status.outcome != "ok":
            return _Found(outcome=status.outcome, error=_error_of(stage, status.error))
        message = f"{stage} did not run: {'/'.join(path.parts[-2:])} is missing; run the workflow again."
        return _Found(outcome="failed", error=_input_error(stage, message), is_missing=True)
    try:
        result = read_outcome(cls, path) if stage in VARIANT_STAGES else read(cls, path)
    except OtherVersionError:
        message = f"{'/'.join(path.parts[-2:])} is of another version; run compare again to measure again."
        return _Found(outcome="failed", error=_input_error(stage, message), is_foreign=True)
    except ValueError as error:
        return _Found(outcome="failed", error=_input_error(stage, str(error)))
    if status and status.outcome == "failed" and not _is_later(result, status):
        return _Found(outcome="failed", error=_error_of(stage, status.error))
    if isinstance(result, Unsupported | Failed):
        return _Found(outcome=result.outcome, result=result, error=result.error)
    return _Found(outcome="ok", result=result)


def _is_later(result: Any, status: Status) -> bool:
    """Whether a result is newer than a failure; one that does not say when it was made is not believed."""
    provenance = getattr(result, "provenance", None)
    return provenance is not None and provenance.created > status.created


def _collect_row(results_dir: Path, variant: str, statuses: Statuses) -> VariantRow:
    found = {
        stage: _read_stage(cls, results_dir / stage / f"{variant}.json", stage, statuses.get((stage, variant)))
        for stage, cls in VARIANT_STAGES.items()
    }
    outcome, error = _row_outcome(list(found.values()))
    if found["quantize"].outcome == "failed":
        # What an earlier checkpoint of this variant gave is no figure of the one that was asked for.
        found = {stage: item for stage, item in found.items() if stage == "quantize"}
    results = {stage: item.result for stage, item in found.items()}
    return VariantRow(variant=variant, outcome=outcome, error=error, **results)


def _row_outcome(found: list[_Found]) -> tuple[Outcome, Error | None]:
    """The first real failure, then what is missing (nothing is, after an unsupported quantization), then the rest."""
    missing = [item for item in found if item.is_missing]
    failed = [item for item in found if item.outcome == "failed" and not item.is_missing]
    unsupported = [item for item in found if item.outcome == "unsupported"]
    if found[0].outcome == "unsupported":
        missing = []
    for item in (*failed, *missing, *unsupported):
        return item.outcome, item.error
    return "ok", None


def _with_ratios(rows: list[VariantRow]) -> list[VariantRow]:
    """Fill in the ratios to fp32 and bf16."""
    fp32, bf16 = find_variant(rows, REFERENCE_VARIANT), find_variant(rows, BF16_VARIANT)
    fp32_bytes = checkpoint_bytes(fp32) if fp32 else None
    return [
        replace(
            row,
            compression_vs_fp32=_ratio(fp32_bytes, checkpoint_bytes(row)),
            speedup_vs_fp32=speedup(timed(fp32) if fp32 else None, timed(row)),
            speedup_vs_bf16=speedup(timed(bf16) if bf16 else None, timed(row)),
        )
        for row in rows
    ]


def _described_once(rows: list[VariantRow]) -> tuple[Metrics, list[VariantRow]]:
    """What the metrics of all variants are, and the rows without it."""
    metrics: Metrics = {"deviation": {}, "truth": {}}
    for row in rows:
        accuracy = judged(row)
        for group, described in ((accuracy.metrics or {}) if accuracy else {}).items():
            metrics[group] |= described
    return metrics, [
        replace(row, accuracy=replace(accuracy, metrics=None)) if (accuracy := judged(row)) else row for row in rows
    ]


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None


def _input_error(stage: str, message: str) -> Error:
    return Error(stage=stage, kind="input", message=message, traceback=None, exit_code=None)


def _error_of(stage: str, error: Error | None) -> Error:
    return error or _input_error(stage, f"{stage} failed without a message; see its log.")
