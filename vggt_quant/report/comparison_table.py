"""The comparison as a page of text: what was compared, one line a variant, what failed, what to take.

No line is longer than 120 columns. A row that cannot stand beside the others carries a number in brackets, and the
footnote of that number says why.
"""

import textwrap
from collections.abc import Callable

from vggt_quant.report.rows import (
    checkpoint_bytes,
    depth_abs_rel,
    format_bytes,
    format_number,
    is_identical,
    is_on_other_device,
    is_random,
    latency_ms,
    main_device,
    one_line,
    rotation_error_deg,
    speed_device,
    speed_kind,
    worst_sqnr_db,
)
from vggt_quant.report.text_table import WIDTH, lay_out
from vggt_quant.report.truth_table import truth_section
from vggt_quant.results.schema import ComparisonReport, ImagesResult, MethodRow, Provenance

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
        lines.append(f"images    {_describe_scenes(report.images)}")
    if report.calibration:
        lines.append(f"calibrate {_describe_scenes(report.calibration)}; none of their photos is compared on")
    provenance = _main_provenance(report)
    if provenance:
        lines += [f"device    {_describe_device(provenance)}", f"software  {_describe_software(provenance)}"]
    return [*lines, f"date      {report.created}"]


def _describe_scenes(images: ImagesResult) -> str:
    first, *others = images.scenes
    skipped = sum(len(scene.skipped) for scene in images.scenes)
    end = f", skipped files: {skipped}" if skipped else ""
    if not others:
        return f"{first.shape[0]} photos {_size_of(images)} from {first.folder}{end}"
    count = sum(scene.shape[0] for scene in images.scenes)
    where = "drawn rooms" if images.folder == "drawn" else f"scenes in {images.folder}"
    return f"{count} photos {_size_of(images)} in {len(images.scenes)} {where}, {first.name} to {others[-1].name}{end}"


def _size_of(images: ImagesResult) -> str:
    sizes = {tuple(scene.shape[2:]) for scene in images.scenes}
    size = "of {} x {} pixels".format(*sizes.pop()) if len(sizes) == 1 else f"of {len(sizes)} sizes"
    return f"{size} ({images.mode})"


def _main_provenance(report: ComparisonReport) -> Provenance | None:
    """Where the times come from; without any time, where the reference comes from."""
    device = main_device(report.methods)
    for row in report.methods:
        if device and speed_device(row) == device:
            return row.speed.provenance if row.speed else None
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
    cells = [[first for first, _, _ in COLUMNS], [second for _, second, _ in COLUMNS]]
    cells += [[cell(row) for _, _, cell in COLUMNS] for row in report.methods]
    names = ["", "variant", *(row.variant for row in report.methods)]
    return lay_out(names, cells, ["", "status", *(_status(row, report, notes) for row in report.methods)], header=2)


def _latency(row: MethodRow) -> str:
    median = latency_ms(row)
    if median is None or row.speed is None:
        return "-"
    spread = row.speed.latency_ms_iqr
    digits = 2 if median < 10 else 1 if median < 1000 else 0
    return f"{median:.{digits}f}" + ("" if spread is None else f" ±{spread:.{digits}f}")


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{format_number(ratio)}x"


def _sqnr(row: MethodRow) -> str:
    if is_identical(row):
        return "exact"
    value = worst_sqnr_db(row)
    return "-" if value is None else f"{value:.1f}"


def _share(row: MethodRow) -> str:
    share = row.quantize.quantized_share if row.quantize else None
    return "-" if share is None else f"{100 * share:.0f} %"


COLUMNS: list[tuple[str, str, Callable[[MethodRow], str]]] = [
    ("checkpoint", "size", lambda row: format_bytes(checkpoint_bytes(row))),
    ("size", "vs fp32", lambda row: _times(row.compression_vs_fp32)),
    ("latency ms", "median ±IQR", _latency),
    ("speed", "vs fp32", lambda row: _times(row.speedup_vs_fp32)),
    ("speed", "vs bf16", lambda row: _times(row.speedup_vs_bf16)),
    ("peak", "memory", lambda row: format_bytes(row.speed.peak_memory_bytes if row.speed else None)),
    ("depth", "AbsRel", lambda row: format_number(depth_abs_rel(row))),
    ("rot.", "deg", lambda row: format_number(rotation_error_deg(row))),
    ("SQNR", "dB", _sqnr),
    ("quant.", "share", _share),
]


def _status(row: MethodRow, report: ComparisonReport, notes: list[str]) -> str:
    numbers = [notes.index(note) + 1 for note in _notes_of(row, report)]
    return row.outcome + "".join(f"[{number}]" for number in numbers)


def _footnotes(report: ComparisonReport) -> list[str]:
    return list(dict.fromkeys(note for row in report.methods for note in _notes_of(row, report)))


def _notes_of(row: MethodRow, report: ComparisonReport) -> list[str]:
    """What a reader must know of a row, each as one sentence."""
    notes = []
    if is_on_other_device(row, report.methods):
        kind = row.speed.peak_memory_kind if row.speed else None
        notes.append(
            f"measured on {speed_device(row)} ({speed_kind(row)}, memory: {kind}): time and memory do not compare "
            f"with the rows on {main_device(report.methods)}"
        )
    for result in (row.accuracy, row.speed):
        if result and result.note:
            notes.append(one_line(result.note))
    scenes = row.accuracy.scenes if row.accuracy else []
    broken = [f"{s.scene}, {name}: {e.error}" for s in scenes for name, e in s.outputs.items() if e.error]
    return list(dict.fromkeys([*notes, "; ".join(broken)] if broken else notes))


def _legend(report: ComparisonReport) -> list[str]:
    kinds = sorted({row.speed.peak_memory_kind for row in report.methods if row.speed and row.speed.peak_memory_kind})
    timed = " Time and memory: first scene." if report.images and len(report.images.scenes) > 1 else ""
    lines = [
        "AbsRel, rotation and SQNR compare with the fp32 outputs on the same images; SQNR is that of the worst output.",
        f"The share is that of all parameters which are quantized.{timed}"
        + (f" Peak memory: {', '.join(kinds)}." if kinds else ""),
    ]
    return [*lines, RANDOM_WEIGHTS_NOTE] if is_random(report) else lines


def _failures(report: ComparisonReport) -> list[str]:
    lines = [f"  {error.stage}: {one_line(error.message)}" for error in report.errors]
    for row in report.methods:
        if row.outcome != "ok":
            stage, message = (row.error.stage, row.error.message) if row.error else ("?", "no message")
            lines.append(f"  {row.variant} {row.outcome} in {stage}: {one_line(message)}")
    return ["Failed or unsupported", *(_cut(line) for line in lines)] if lines else []


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
