"""A packed format is one file: the one of docs/extending.md, dropped into a copy of the package."""

import re

import pytest
from extending_guide import code, section
from package_copy import ROOT, PackageCopy

VARIANT = """
mean8_rtn:
  method: round_to_nearest
  config: {format: mean8}
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    package = PackageCopy(tmp_path_factory.mktemp("copy"))
    package.add("vggt_quant/quantization/formats/mean8.py", code("A packed format"))
    with open(package.folder / "config" / "variants.yaml", "a") as file:
        file.write(VARIANT)
    return package


def test_the_guide_is_short():
    assert len([line for line in section("A packed format").splitlines() if line.strip()]) <= 30


def test_its_conformance_is_tested(copied):
    found = copied.run(
        *("-m", "pytest", str(ROOT / "tests" / "test_formats.py"), "-k", "mean8", "-p", "no:cacheprovider", "-v")
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(re.search(r"(\d+) passed", found.stdout)[1]) >= 25


def test_its_checkpoint_is_saved_and_loaded_and_its_kernel_recorded(copied):
    code = """
import torch, vggt_quant
from vggt_quant.inference.engine import open_checkpoint
from vggt_quant.quantization.formats.base import packed_layers
model = vggt_quant.quantize_model(vggt_quant.load("nano-random"), "mean8_rtn")
vggt_quant.save(model, "mean8.safetensors")
again, images = vggt_quant.load("mean8.safetensors"), torch.rand(1, 3, 28, 28)
assert torch.equal(again(images)["depth"], model(images)["depth"])
assert {layer.format for layer in packed_layers(again).values()} == {"mean8"}
print(open_checkpoint("mean8.safetensors", "cpu").kernels["mean8"])
"""
    found = copied.run("-c", code)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "torch: dequantize, then matmul\n"


def test_variants_are_checked_with_it_before_anything_runs(copied):
    code = """
from vggt_quant.quantization import methods
from vggt_quant.variants import Variant, load_variants
print(methods.config_of(load_variants()["mean8_rtn"]).packs)
for config in ({"format": "mean9"}, {"format": "mean8", "group_size": 64}):
    try:
        methods.config_of(Variant(name="v", method="round_to_nearest", config=config))
    except ValueError as error:
        print(error)
import sys
assert "torch" not in sys.modules
"""
    found = copied.run("-c", code)
    assert found.returncode == 0, found.stderr
    packs, unknown, wrong = found.stdout.splitlines()
    assert packs == "mean8"
    assert "no format 'mean9'" in unknown and "mean8" in unknown
    assert "mean8 has no groups" in wrong
