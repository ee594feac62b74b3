"""The comparison as a page of text: the inputs, one line per variant, the failures and the recommendation.

No line is longer than 120 columns. If a row cannot be compared with the others, a numbered footnote says why.
"""

import textwrap
from collections.abc import Callable

from vggt_quant.report.rows import (
    checkpoint_bytes,
    deviation,
    format_bytes,
    format_number,
    is_identical,
    is_on_other_device,
    is_random,
    judged,
    main_device,
    one_line,
    quantized,
    speed_device,
    timed,
    worst_sqnr_db,
)
from vggt_quant.report.text_table import WIDTH, lay_out
from vggt_quant.report.truth_table import truth_section
from vggt_quant.results.metric import columns
from vggt_quant.results.report_schema import ComparisonReport, VariantRow
from vggt_quant.results.scenes_in_words import scenes_in_words
from vggt_quant.results.schema import Provenance

Column = tuple[str, str, Callable[[VariantRow], str]]
"""Both lines of its heading, and its cell."""

RANDOM_WEIGHTS_NOTE = (
    "Random weights: the accuracy columns compare with fp32 on random weights: "
    "they show that the arithmetic is right, not how good the method is."
)


def summary(report: ComparisonReport) -> str:
    """The whole page, ending in a newline."""
    notes = _footnotes(report)
    sections = [
        _heading(report),
        _table(report, notes),
        _legend(report),
        truth_section(report),
        [f"[{number}] {note}" for number, note in enumerate(notes, start=1)],
        _failures(report),
        ["Recommendation", *(f"  {line}" for line in report.recommendation.splitlines())],
    ]
    return "\n\n".join("\n".join(_wrap(lines)) for lines in sections if lines) + "\n"


def _wrap(lines: list[str]) -> list[str]:
    wrapped = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        wrapped += (
            textwrap.wrap(line, WIDTH, subsequent_indent=indent, drop_whitespace=True) if line[WIDTH:] else [line]
        )
    return wrapped


def _heading(report: ComparisonReport) -> list[str]:
    title = "VGGT quantization comparison"
    if report.partial:
        title += " (PARTIAL: a step failed; the run goes on from here when it is started again)"
    lines = [title, "=" * 28]
    if report.model:
        revision = f", revision {report.model.revision}" if report.model.revision else ""
        lines.append(f"model     {report.model.label}, {report.model.num_parameters / 1e6:,.1f} M parameters{revision}")
    if report.images:
        lines.append(f"images    {scenes_in_words(report.images)}")
    if report.calibration:
        lines.append(f"calibrate {scenes_in_words(report.calibration)}; none of their photos is compared on")
    provenance = _main_provenance(report)
    if provenance:
        lines += [f"device    {_describe_device(provenance)}", f"software  {_describe_software(provenance)}"]
    return [*lines, f"date      {report.created}"]


def _main_provenance(report: ComparisonReport) -> Provenance | None:
    """Where the times come from; without any time, where the reference comes from."""
    device = main_device(report.variants)
    for row in report.variants:
        speed = timed(row)
        if speed and speed.provenance.device_name == device:
            return speed.provenance
    return report.reference.provenance if report.reference else None


def _describe_device(provenance: Provenance) -> str:
    if provenance.device == "cpu":
        return f"{provenance.device_name} (cpu, {provenance.cpu_threads} threads)"
    return f"{provenance.device_name} (capability {provenance.device_capability}, driver {provenance.driver})"


def _describe_software(provenance: Provenance) -> str:
    cuda = f", CUDA {provenance.cuda}" if provenance.cuda else ""
    commit = f", commit {provenance.commit[:12]}" if provenance.commit else ""
    return (
        f"torch {provenance.torch}{cuda}, Python {provenance.python}, vggt_quant {provenance.package_version}{commit}"
    )


def _table(report: ComparisonReport, notes: list[str]) -> list[str]:
    shown = [*COLUMNS, *_deviation_columns(report), *LAST_COLUMNS]
    cells = [[first for first, _, _ in shown], [second for _, second, _ in shown]]
    cells += [[cell(row) for _, _, cell in shown] for row in report.variants]
    names = ["", "variant", *(row.variant for row in report.variants)]
    return lay_out(names, cells, ["", "status", *(_status(row, report, notes) for row in report.variants)], header=2)


def _deviation_columns(report: ComparisonReport) -> list[Column]:
    """A column for each deviation from fp32 that has a rank; its heading is the title and the unit."""
    metrics = columns(report.metrics.get("deviation", {}))
    headings = {name: f"{metric.title} {metric.unit}".strip() for name, metric in metrics.items()}
    return [(*_two_lines(heading), _deviation_cell(name)) for name, heading in headings.items()]


def _two_lines(heading: str) -> tuple[str, str]:
    first, _, second = heading.partition(" ")
    return (first, second) if second else ("", first)


def _deviation_cell(metric: str) -> Callable[[VariantRow], str]:
    return lambda row: format_number(deviation(row, metric))


def _latency(row: VariantRow) -> str:
    speed = timed(row)
    if speed is None:
        return "-"
    digits = 2 if speed.latency_ms_median < 10 else 1 if speed.latency_ms_median < 1000 else 0
    return f"{speed.latency_ms_median:.{digits}f} ±{speed.latency_ms_iqr:.{digits}f}"


def _peak(row: VariantRow) -> str:
    speed = timed(row)
    return format_bytes(speed.peak_memory_bytes if speed else None)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{format_number(ratio)}x"


def _sqnr(row: VariantRow) -> str:
    if is_identical(row):
        return "exact"
    value = worst_sqnr_db(row)
    return "-" if value is None else f"{value:.1f}"


def _share(row: VariantRow) -> str:
    packed = quantized(row)
    return f"{100 * packed.quantized_share:.0f} %" if packed else "-"


COLUMNS: list[Column] = [
    ("checkpoint", "size", lambda row: format_bytes(checkpoint_bytes(row))),
    ("size", "vs fp32", lambda row: _times(row.compression_vs_fp32)),
    ("latency ms", "median ±IQR", _latency),
    ("speed", "vs fp32", lambda row: _times(row.speedup_vs_fp32)),
    ("speed", "vs bf16", lambda row: _times(row.speedup_vs_bf16)),
    ("peak", "memory", _peak),
]
LAST_COLUMNS: list[Column] = [("SQNR", "dB", _sqnr), ("quant.", "share", _share)]


def _status(row: VariantRow, report: ComparisonReport, notes: list[str]) -> str:
    numbers = [notes.index(note) + 1 for note in _notes_of(row, report)]
    return row.outcome + "".join(f"[{number}]" for number in numbers)


def _footnotes(report: ComparisonReport) -> list[str]:
    return list(dict.fromkeys(note for row in report.variants for note in _notes_of(row, report)))


def _notes_of(row: VariantRow, report: ComparisonReport) -> list[str]:
    """What a reader must know of a row, each as one sentence."""
    accuracy, speed = judged(row), timed(row)
    notes = []
    if speed and is_on_other_device(row, report.variants):
        notes.append(
            f"measured on {speed_device(row)} ({speed.provenance.device}, memory: {speed.peak_memory_kind}): time and "
            f"memory do not compare with the rows on {main_device(report.variants)}"
        )
    notes += [one_line(result.note) for result in (accuracy, speed) if result and result.note]
    scenes = accuracy.scenes if accuracy else []
    broken = [f"{s.scene}, {name}: {e.error}" for s in scenes for name, e in s.outputs.items() if e.error]
    return list(dict.fromkeys([*notes, "; ".join(broken)] if broken else notes))


def _legend(report: ComparisonReport) -> list[str]:
    kinds = sorted({speed.peak_memory_kind for row in report.variants if (speed := timed(row))})
    where = " Time and memory: first scene." if report.images and len(report.images.scenes) > 1 else ""
    lines = [
        "AbsRel, rotation and SQNR compare with the fp32 outputs on the same images; SQNR is that of the worst output.",
        f"The share is that of all parameters which are quantized.{where}"
        + (f" Peak memory: {', '.join(kinds)}." if kinds else ""),
    ]
    return [*lines, RANDOM_WEIGHTS_NOTE] if is_random(report) else lines


def _failures(report: ComparisonReport) -> list[str]:
    lines = [f"  {error.stage}: {one_line(error.message)}" for error in report.errors]
    for row in report.variants:
        if row.outcome != "ok":
            stage, message = (row.error.stage, row.error.message) if row.error else ("?", "no message")
            lines.append(f"  {row.variant} {row.outcome} in {stage}: {one_line(message)}")
    return ["Failed or unsupported", *(_cut(line) for line in lines)] if lines else []


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
