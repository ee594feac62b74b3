"""A metric against the truth is one file: the one of docs/extending.md, dropped into a copy of the package."""

import json

import pytest
from extending_guide import code
from package_copy import PackageCopy
from PIL import Image

RUN = """
from vggt_quant.cli.main import main

def run(words):
    assert main(words.split()) == 0, words

run("model --model tiny --result results/model.json")
run("images --images drawn --model tiny --max-scenes 1 --max-images 2 --result results/images.json")
both = "--model results/model.json --cache cache --device cpu"
run(f"reference {both} --images results/images.json --result results/reference.json")
for name in ("fp32", "int8_symmetric"):
    run(f"quantize {both} --variant {name} --result results/quantize/{name}.json")
    more = f"--packed results/quantize/{name}.json --reference results/reference.json --images results/images.json"
    run(f"accuracy {both} {more} --result results/accuracy/{name}.json")
"""
REPORT = ("report", "--results", "results", "--logs", "logs", "--variants", "fp32,int8_symmetric")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy with the metric, in which two variants were compared."""
    package = PackageCopy(tmp_path_factory.mktemp("copy"))
    package.add("vggt_quant/evaluation/metrics/focal.py", code("A metric"))
    made = package.run("-c", RUN)
    assert made.returncode == 0, made.stderr
    return package


def test_each_scene_has_its_figure_and_the_file_says_what_it_is(copied):
    made = json.loads((copied.folder / "results" / "accuracy" / "int8_symmetric.json").read_text())
    assert 0 < made["scenes"][0]["truth"]["focal_error"] < 1
    assert (
        made["metrics"]["truth"]["focal_error"] | {"title": "focal error", "unit": "%", "better": "down"}
        == (made["metrics"]["truth"]["focal_error"])
    )


def test_the_summary_and_the_picture_show_it_even_where_the_file_is_not_known(copied):
    (copied.folder / "vggt_quant" / "evaluation" / "metrics" / "focal.py").unlink()
    said = copied.vggt_quant(*REPORT)
    assert said.returncode == 0, said.stderr
    heading = next(line for line in said.stdout.splitlines() if "pose AUC@30" in line)
    assert heading.index("pose AUC@5") < heading.index("↓ focal error") < heading.index("depth AbsRel")
    assert "Focal: the width's focal length." in said.stdout
    report = json.loads((copied.folder / "results" / "comparison_report.json").read_text())
    assert report["variants"][1]["truth"]["focal_error"]["num_scenes"] == 1
    titles = """
from vggt_quant.report.figures import comparison_figure
from vggt_quant.results.report_schema import ComparisonReport
from vggt_quant.results.schema import read
report = read(ComparisonReport, "results/comparison_report.json")
print(*(axes.get_title(loc="left") for axes in comparison_figure(report).axes if axes.get_visible()), sep=chr(10))
"""
    drawn = copied.run("-c", titles).stdout.splitlines()
    assert len(drawn) == 7 and "Focal lengths vs ground truth" in drawn
    with Image.open(copied.folder / "results" / "comparison_plots.png") as image:
        assert image.format == "PNG"
