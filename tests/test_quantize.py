"""The driver: any module, any variant, refusals with names."""

import copy

import pytest
import torch
from torch import nn

import vggt_quant
from vggt_quant import formats, quantize, rounding
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.variants import Variant, find_variant, load_variants

VARIANTS = load_variants()


def test_the_seven_variants_have_the_names_that_users_know():
    assert list(VARIANTS) == [
        *("fp32", "bf16", "pytorch_dynamic_int8", "int8_symmetric", "int8_asymmetric", "int4_group128", "int4_group64")
    ]


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].method != "cast"])
def test_a_foreign_model_is_quantized_in_place_and_still_takes_its_own_inputs(name):
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.LayerNorm(256)).eval()
    original, x = copy.deepcopy(model), torch.randn(32, 256)
    assert vggt_quant.quantize_model(model, name) is model
    assert len(formats.packed_layers(model)) == 2
    assert model(x).dtype == torch.float32
    floor_db = 15 if "int4" in name else 30
    assert rounding.sqnr_db(original(x), model(x)) > floor_db


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].method != "cast"])
def test_vggt_stays_close_to_fp32(name):
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    original, model = (load_pretrained(resolve("nano-random")) for _ in range(2))
    done = quantize.run(model, VARIANTS[name], dtype=getattr(torch, VARIANTS[name].dtype))
    assert set(done.sqnr_db) == set(done.selection.quantized) == set(formats.packed_layers(model))
    with torch.inference_mode():
        expected, got = original(images), model(images)
    assert got["depth"].dtype == torch.float32
    assert rounding.sqnr_db(expected["depth"].log(), got["depth"].log()) > (8 if "int4" in name else 15)


def test_quantizing_layers_with_autocast_on_an_unchanged_model_works():
    model, x = nn.Sequential(nn.Linear(64, 64)), torch.randn(4, 64)
    vggt_quant.quantize_model(model, "int8_symmetric")
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


def test_dense_parts_are_cast_only_when_asked():
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))
    vggt_quant.quantize_model(model, "int8_symmetric", dtype=torch.bfloat16)
    assert model[1].weight.dtype == model[0].bias.dtype == model[0].weight_scale.dtype == torch.bfloat16


def test_a_float32_variant_keeps_16_bit_scales():
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))
    vggt_quant.quantize_model(model, "int8_symmetric", dtype=torch.float32)
    assert model[0].weight_scale.dtype == torch.bfloat16
    assert model[0].bias.dtype == torch.float32


def test_the_old_names_are_doors_to_the_same_code():
    first, second = (nn.Sequential(nn.Linear(256, 64)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    config = vggt_quant.AdvancedQuantConfig(quant_type="int4_group", bits=4, group_size=64)
    vggt_quant.quantize_model_advanced(first, config)
    vggt_quant.quantize_model(second, "int4_group64")
    x = torch.randn(3, 256)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_type": "int5"}, "int5"),
        ({"quant_type": "int8_symmetric", "bits": 4}, "bits is 4"),
        ({"quant_type": "int8_asymmetric", "group_size": 64}, "group_size is 64"),
    ],
)
def test_impossible_old_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        vggt_quant.AdvancedQuantConfig(**settings)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("int3_magic", "no variant 'int3_magic'"),
        (Variant(name="v", method="magic"), "no method 'magic'"),
        (Variant(name="v", method="round_to_nearest", config={"format": "w4a16"}), "group_size is None"),
        (Variant(name="v", method="round_to_nearest", config={"format": "w9"}), "w9"),
        (Variant(name="v", method="cast", config={"bits": 3}), "does not know"),
    ],
)
def test_impossible_variants_are_refused_by_name(variant, words):
    with pytest.raises(ValueError, match=words):
        vggt_quant.quantize_model(nn.Sequential(nn.Linear(32, 32)), variant)


def test_a_model_without_linears_is_refused():
    with pytest.raises(ValueError, match="finds nothing to quantize"):
        vggt_quant.quantize_model(nn.Sequential(nn.Conv2d(3, 3, 3)), "int8_symmetric")


def test_a_bare_linear_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"wrap it in nn.Sequential"):
        vggt_quant.quantize_model(nn.Linear(64, 64), "int8_symmetric")


def test_dynamic_int8_says_that_it_packs_float32_on_the_cpu():
    with pytest.raises(ValueError, match=r"model.cpu\(\).float\(\)"):
        vggt_quant.quantize_model(nn.Sequential(nn.Linear(64, 64)).bfloat16(), "pytorch_dynamic_int8")


def test_a_layer_with_nan_is_named():
    model = nn.Sequential(nn.Linear(64, 64))
    nn.init.constant_(model[0].weight, float("nan"))
    with pytest.raises(ValueError, match=r"^0: .*NaN"):
        vggt_quant.quantize_model(model, "int8_symmetric")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {method: cast, dtyp: x}", "dtyp"),
        ("a: {dtype: float32}", "method"),
        ("a: {method: cast, dtype: int4}", "dtype is 'int4'"),
        ("- a", "should map"),
        ("a: 3", "should be a mapping"),
        ("a: [", "Cannot read"),
    ],
)
def test_a_wrong_variants_file_is_refused(tmp_path, text, words):
    path = tmp_path / "variants.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        find_variant("a", path)
