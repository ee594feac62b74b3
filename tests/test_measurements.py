"""Figures that the READMEs quote of a GPU are those of the committed measurements."""

import re
from pathlib import Path

import pytest

from vggt_quant.report import speed_report, speed_summary
from vggt_quant.report.comparison_table import summary
from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import read
from vggt_quant.results.speed_schema import SweepResult

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ROOT / "docs" / "measurements"
SPEED = MEASUREMENTS / "2026-11-26-h100-speed"
REPORTS = sorted(MEASUREMENTS.glob("*/comparison_report.json"))
SWEEPS = sorted(
    path
    for pattern in ("sweeps/*", "baselines/*", "sweep_*", "*_segments")
    for path in MEASUREMENTS.glob(f"*/{pattern}.json")
)
QUOTED = ["bf16", "bf16_autocast", "tf32", "fp32", "fp8", "fp8_attention8", "int8_w8a8", "int4_w4a8"]
QUOTED += ["int4_w4a8_attention8"]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_speed_table_of_the_readme_is_drawn_from_the_data(readme):
    text = (ROOT / readme).read_text()
    (quoted,) = re.findall(r"<!-- h100 speed: begin -->\n```text\n(.*?)\n```\n<!-- h100 speed: end -->", text, re.S)
    blocks = speed_summary.summary(speed_report.collect(SPEED, QUOTED)).split("\n\n")
    assert len(blocks) > 8 and quoted.count("\n") > 30
    assert [block for block in quoted.split("\n\n") if block not in blocks] == []


def test_the_table_beside_the_data_is_drawn_from_it():
    names = [path.stem for path in (SPEED / "sweeps").glob("*.json")]
    written = (SPEED / "speed_table.txt").read_text()
    rows = speed_summary.summary(speed_report.collect(SPEED, names)).splitlines()
    assert sorted(row.split() for row in rows if row) == sorted(row.split() for row in written.splitlines() if row)


def test_the_best_eight_bits_are_faster_than_bf16_at_every_size_of_the_data():
    row = next(row for row in speed_report.collect(SPEED, ["bf16", "fp8"]).rows if row.variant == "fp8")
    assert [cell.num_images for cell in row.cells] == [1, 2, 5, 10, 20, 50, 100, 200]
    assert all(cell.speedup_vs_bf16 > 1 and cell.apart_from_bf16 for cell in row.cells)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.relative_to(MEASUREMENTS)))
def test_every_sweep_is_still_read(path):
    sweep = read(SweepResult, path)
    assert sweep.sizes and all(size.latency_ms_median or size.reason for size in sweep.sizes)


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_every_report_is_still_read_and_gives_the_table_of_its_page(path):
    written = path.with_name("comparison_summary.txt").read_text().splitlines()
    drawn = summary(read(ComparisonReport, path)).splitlines()
    begin = next(place for place, line in enumerate(written) if line.startswith("variant"))
    table = written[begin : written.index("", begin)]
    assert len(table) > 6 and [line for line in table if line not in drawn] == []


def test_figures_against_the_truth_are_those_of_the_page_to_the_digit():
    path = MEASUREMENTS / "2026-11-26-h100-tiny" / "comparison_report.json"
    assert summary(read(ComparisonReport, path)) == path.with_name("comparison_summary.txt").read_text()
