"""What documents say of settings is written from the definitions, and is up to date."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from extending_guide import code
from package_copy import PackageCopy

from vggt_quant.quantization import methods
from vggt_quant.results.documentation import field_docs
from vggt_quant.variants import Calibration, Comparison, Images, Policy, RunSettings, VariantSettings, read_comparison

ROOT = Path(__file__).parents[1]
METHODS = [methods.get(name).Config for name in methods.names()]


def test_tables_and_schemas_are_what_make_docs_writes():
    check = subprocess.run([sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.fixture
def copied(tmp_path):
    """A copy of the package with the guide's method, format and backend in it, and `make docs` for it."""
    package = PackageCopy(tmp_path)
    package.add("vggt_quant/quantization/methods/clipped.py", code("A quantization method"))
    package.add("vggt_quant/quantization/formats/mean8.py", code("A packed format"))
    package.add("vggt_quant/inference/attention/chunked.py", code("An attention backend"))
    (tmp_path / "tools").mkdir()
    package.add("tools/docs.py", (ROOT / "tools" / "docs.py").read_text())
    return package


def test_a_new_method_format_or_backend_leaves_documents_as_they_are_until_make_docs_brings_its_row(copied):
    check = copied.run("tools/docs.py", "--check")
    assert check.returncode == 0, check.stdout + check.stderr
    table, before = copied.folder / "config" / "README.md", (ROOT / "config" / "README.md").read_text()
    assert copied.run("tools/docs.py").returncode == 0
    new = set(table.read_text().splitlines()) - set(before.splitlines())
    assert sorted(row.split("`")[1] for row in new) == ["chunked", "clipped", "mean8"]


@pytest.mark.parametrize(("row", "wrong"), [("| `w8a8` |", "| `w9a9` |"), ("| `cast` |", "| `cast` | more"),
                                            ("| `optional` |", "| `option` |")])  # fmt: skip
def test_a_row_that_is_wrong_is_found(copied, row, wrong):
    table = copied.folder / "config" / "README.md"
    text = table.read_text()
    assert text.count(f"\n{row}") == 1
    table.write_text(text.replace(f"\n{row}", f"\n{wrong}"))
    check = copied.run("tools/docs.py", "--check")
    assert check.returncode == 1
    assert "config/README.md is not what `make docs` writes; run it." in check.stdout


@pytest.mark.parametrize(
    "kind", [Comparison, Images, Calibration, VariantSettings, Policy, RunSettings, *METHODS], ids=lambda k: k.__name__
)
def test_every_setting_says_what_it_is(kind):
    docs = field_docs(kind)
    assert [name for name in kind.__struct_fields__ if not docs.get(name, "").endswith(".")] == []


@pytest.mark.parametrize("name", ["config", "variants"])
def test_the_shipped_files_fit_their_schemas(name):
    schema = json.loads((ROOT / "workflow" / "schemas" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()), schema)


def test_the_shipped_config_holds_the_defaults():
    shipped = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert read_comparison(shipped) == (Comparison(), [])
