"""One conformance suite over every method that is found: a new method brings no new test file."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import vggt_quant
from vggt_quant.quantization import formats, methods, quantize
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.results import decibels
from vggt_quant.results.documentation import field_docs
from vggt_quant.variants import Variant

NAMES = methods.names()


def settings_of(name):
    """Settings that a method takes: for each format that it writes those which the format tries, or none."""
    if not issubclass(methods.get(name).Config, methods.FormatConfig):
        return [{}]
    wanted = [{"format": other, **example} for other in formats.names() for example in formats.spec(other).examples]
    return [config for config in wanted if is_taken(name, config)]


def is_taken(name, config):
    try:
        methods.config_of(Variant(name="v", method=name, config=config))
    except ValueError:
        return False
    return True


CASES = [(name, config) for name in NAMES for config in settings_of(name)]


def test_methods_and_formats_are_read_without_torch():
    code = (
        "import sys; from vggt_quant.quantization import catalog, formats, methods;"
        "[methods.get(name).Config for name in methods.names()]; [formats.spec(name) for name in formats.names()];"
        "catalog.load_variants(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_method_takes_some_settings_and_each_says_what_it_is(name):
    assert settings_of(name)
    config = methods.get(name).Config
    assert set(config.__struct_fields__) <= set(field_docs(config))


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_a_method_does_not_have_is_refused(name):
    says = r"^Variant v: (config: there is no key|the method \w+ has no settings, but config has) 'colour'; "
    with pytest.raises(ValueError, match=says):
        methods.config_of(Variant(name="v", method=name, config={"colour": "red"}))


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_method_replaces_the_layers_that_it_is_given_by_its_format_and_no_other(name, config):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 32, bias=False), nn.Linear(32, 8)).eval()
    before = copy.deepcopy(model)
    variant = Variant(name="v", method=name, config=config, dtype="float32")
    done = quantize.run(model, variant, dtype=None)
    packed, packs = packed_layers(model), methods.config_of(variant).packs
    assert set(packed) == set(done.sqnr_db) == ({"0", "2"} if packs else set())
    assert {layer.format for layer in packed.values()} == ({packs} if packs else set())
    assert all(level > 10 for level in done.sqnr_db.values())  # a wrong row or scale leaves less than 0 dB
    assert torch.equal(model[3].weight, before[3].weight)
    x = torch.randn(16, 128)
    assert decibels.sqnr_db(before(x), model(x)) > 8  # and a bias that is lost or another layer's about 0


@pytest.mark.parametrize(("name", "config"), [case for case in CASES if case[0] != "cast"])
def test_a_weight_that_is_not_finite_is_refused_by_its_layers_name_before_any_layer_is_touched(name, config):
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    nn.init.constant_(model[1].weight, float("inf"))
    with pytest.raises(ValueError, match=r"^1: its weight holds NaN or infinity"):
        vggt_quant.quantize_model(model, Variant(name="v", method=name, config=config))
    assert not packed_layers(model)


@pytest.mark.parametrize(
    ("older", "config", "packs"),
    [
        ("round_to_float8", {}, "fp8"),
        ("round_to_float8", {"format": "humming_fp8"}, "humming_fp8"),
        ("round_to_nf4", {}, "bitsandbytes_nf4"),
    ],
)
def test_older_names_of_rounding_to_nearest_are_still_taken(older, config, packs):
    variant = Variant(name="v", method=older, config=config)
    assert variant.spec()["method"] == "round_to_nearest"
    assert methods.config_of(variant).packs == packs


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"format": "w8a16", "group_size": 64}, "group_size is 64, but w8a16 has no groups to choose; leave it out."),
        ({"format": "w4a16"}, "w4a16 needs a group_size, e.g. 128."),
        ({"format": "torchao_int4", "group_size": 48}, "has groups of 32, 64, 128, 256 only."),
        ({"format": "fp8", "zero_points": True}, "fp8 multiplies no weights with zero points; leave zero_points out."),
        ({"group_size": 64}, "the key 'format' is missing; it should be text."),
    ],
)
def test_settings_that_a_format_does_not_have_are_refused(config, sentence):
    with pytest.raises(ValueError) as caught:
        methods.config_of(Variant(name="v", method="round_to_nearest", config=config))
    assert str(caught.value).startswith("Variant v: config: ") and str(caught.value).endswith(sentence)
