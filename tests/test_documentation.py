"""What documents say of settings is written from the definitions, and is up to date."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from vggt_quant.quantization import methods
from vggt_quant.results.documentation import field_docs
from vggt_quant.variants import Calibration, Comparison, Images, Policy, RunSettings, VariantSettings, read_comparison

ROOT = Path(__file__).parents[1]
METHODS = [methods.get(name).Config for name in methods.names()]


def test_tables_and_schemas_are_what_make_docs_writes():
    check = subprocess.run([sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


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
