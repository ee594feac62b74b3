"""A command is one file: the one of docs/extending.md, dropped into a copy of the package."""

import pytest
from extending_guide import code
from package_copy import PackageCopy

STEP = """
from vggt_quant.cli import flags
from vggt_quant.results.scene_schema import SkippedImage

HELP = "a step of a test"
FOR_WORKFLOW = True


def add_flags(command):
    flags.step(command)
    command.add_argument("--fail", action="store_true", help="fail")


def run(args):
    if args.fail:
        raise ValueError("it was told to fail.")
    return SkippedImage(path="a.jpg", reason="b")
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    package = PackageCopy(tmp_path_factory.mktemp("copy"))
    package.add("vggt_quant/cli/layers.py", code("A command"))
    package.add("vggt_quant/cli/toy.py", STEP)
    return package


def test_it_is_in_the_help_and_runs(copied):
    overview = copied.vggt_quant("--help").stdout
    people, steps = overview.split("steps that the workflow calls:")
    assert "  layers  " in people and "list the linear layers of a model" in people
    assert "  toy  " in steps and "  toy  " not in people
    assert "the original model" in copied.vggt_quant("layers", "--help").stdout
    shown = copied.vggt_quant("layers", "--model", "nano-random")
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) > 20 and "qkv" in shown.stdout


def test_near_misses_of_its_name_and_flags_are_suggested(copied):
    assert "'layer' (did you mean 'layers'?)" in copied.vggt_quant("layer").stderr
    assert "--modell (did you mean '--model'?)" in copied.vggt_quant("layers", "--modell", "tiny").stderr


def test_a_step_leaves_its_result_and_how_it_ended(copied):
    made = copied.vggt_quant("toy", "--result", "toy.json", "--status", "status.json")
    assert made.returncode == 0, made.stderr
    assert '"reason": "b"' in (copied.folder / "toy.json").read_text()
    assert '"outcome": "ok"' in (copied.folder / "status.json").read_text()
    failed = copied.vggt_quant("toy", "--fail", "--result", "other.json", "--status", "status.json")
    assert failed.returncode == 2 and failed.stderr == "vggt-quant: toy: it was told to fail.\n"
    assert not (copied.folder / "other.json").exists()
    assert '"kind": "input"' in (copied.folder / "status.json").read_text()
