"""A quantization method is one file and one entry of variants.yaml: the guide's own, in a copy of the package."""

import json
import re

import pytest
from package_copy import ROOT, PackageCopy

SECTION = (ROOT / "docs" / "extending.md").read_text().split("## A quantization method\n")[1].split("\n## ")[0]
CODE, ENTRY = (re.search(rf"```{kind}\n(.*?)```", SECTION, re.S)[1] for kind in ("python", "yaml"))
CONFIG = (
    "{model: nano-random, images: {max_scenes: 1}, calibration: {folder: none}, device: cpu, variants: [int4_clipped]}"
)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    package = PackageCopy(tmp_path_factory.mktemp("package"))
    package.add("vggt_quant/quantization/methods/clipped.py", CODE)
    with open(package.folder / "config" / "variants.yaml", "a") as file:
        file.write(ENTRY)
    return package


def test_the_guide_is_short():
    assert len([line for line in SECTION.splitlines() if line.strip()]) < 30


def test_its_variant_has_keys_of_its_own_and_changes_no_other(package, tmp_path):
    without = PackageCopy(tmp_path)
    before, after = (json.loads(copy.vggt_quant("keys", "--device", "cpu").stdout) for copy in (without, package))
    assert set(after["quantize"]) - set(before["quantize"]) == {"int4_clipped"}
    assert {name: after["quantize"][name] for name in before["quantize"]} == before["quantize"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            "shar: 0.9",
            "mine.yaml: variant mine: config: there is no key 'shar' (did you mean 'share'?); the keys are ",
        ),
        ("share: much", "mine.yaml: variant mine: config: share should be a number, but is 'much'."),
        (
            "format: w4a61",
            "mine.yaml: variant mine: config: There is no format 'w4a61' (did you mean 'w4a16'?)",
        ),
        (
            "format: fp8",
            "mine.yaml: variant mine: config: format is 'fp8', which is written by rounding to nearest only",
        ),
    ],
)
def test_its_settings_are_checked_before_anything_runs(package, entry, sentence):
    settings = entry if "format" in entry else f"format: w8a16, {entry}"
    (package.folder / "mine.yaml").write_text(f"mine: {{method: clipped, config: {{{settings}}}}}")
    (package.folder / "config.yaml").write_text("variants_file: mine.yaml")
    refused = package.vggt_quant("keys", "--config", "config.yaml")
    assert refused.returncode == 2
    assert sentence in refused.stderr


@pytest.mark.workflow
def test_the_workflow_plans_its_rules(package):
    (package.folder / "mine.yaml").write_text(CONFIG)
    words = ("--snakefile", "workflow/Snakefile", "--cores", "1", "--dry-run", "--configfile", "mine.yaml")
    planned = package.run("-m", "snakemake", *words)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    rules = set(re.findall(r"^rule (\w+):$", planned.stdout + planned.stderr, re.M))
    assert {f"{stage}_int4_clipped" for stage in ("quantize", "accuracy", "speed")} <= rules


def test_the_conformance_suite_tests_it(package):
    words = ("-m", "pytest", str(ROOT / "tests" / "test_methods.py"), "-k", "clipped", "-p", "no:cacheprovider")
    tested = package.run(*words)
    assert tested.returncode == 0, tested.stdout
    assert "no tests ran" not in tested.stdout


def test_it_quantizes_a_model(package):
    code = (
        "import vggt_quant; model = vggt_quant.load('nano-random'); vggt_quant.quantize_model(model, 'int4_clipped');"
        "print(model.aggregator.frame_blocks[0].attn.qkv.format)"
    )
    made = package.run("-c", code)
    assert made.stdout.strip() == "w4a16", made.stderr
