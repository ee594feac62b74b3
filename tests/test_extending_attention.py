"""An attention backend is one file: the one of docs/extending.md, dropped into a copy of the package."""

import pytest
from extending_guide import code, section
from package_copy import ROOT, PackageCopy


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    package = PackageCopy(tmp_path_factory.mktemp("copy"))
    package.add("vggt_quant/inference/attention/chunked.py", code("An attention backend"))
    return package


def test_the_guide_is_short():
    assert len([line for line in section("An attention backend").splitlines() if line.strip()]) <= 30


def test_its_conformance_is_tested(copied):
    tests = str(ROOT / "tests" / "test_attention_backends.py")
    found = copied.run("-m", "pytest", tests, "-k", "chunked or settings", "-p", "no:cacheprovider", "-v")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 passed" in found.stdout, found.stdout  # two lengths, and the settings


def test_variants_take_it_the_records_name_it_and_its_arithmetic_is_counted(copied):
    code = """
import sys
from vggt_quant.variants import RunSettings
settings = RunSettings(attention="chunked", attention_tokens=1000)
try:
    RunSettings(attention="chunkd")
except ValueError as error:
    print(error)
assert "torch" not in sys.modules
import torch
from vggt_quant.inference.attention._choice import describe, unsupported
from vggt_quant.inference.plan import Plan
print(describe(torch.device("cpu"), 64, settings))
print(unsupported(torch.device("cpu"), 32, "chunked"))
engine = {"settings": settings, "packed": {}, "compute_dtype": "float16", "device": "cuda", "is_fast": True}
plan = Plan(**engine, num_images=2, tokens=900)
print(plan.arithmetic("aggregator.global_blocks.0.attn", "scores"))
"""
    found = copied.run("-c", code)
    assert found.returncode == 0, found.stderr
    unknown, records, reason, arithmetic = found.stdout.splitlines()
    assert "chunked" in unknown and "'chunkd'" in unknown
    assert records == "chunked attention from 1000 tokens, else torch sdpa"
    assert reason == "heads are 32 wide, not 64"
    assert arithmetic == "bfloat16"
