"""Figures that the READMEs quote of a GPU are those of the committed measurements."""

import re
from pathlib import Path

import pytest

from vggt_quant.report import speed_report, speed_summary

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "docs" / "measurements" / "2026-11-26-h100-speed"
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
