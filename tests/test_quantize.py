"""The driver: any module, any variant, refusals with names."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import vggt_quant
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import quantize
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.results import decibels
from vggt_quant.variants import Variant, find_variant, load_variants

VARIANTS = load_variants()


def test_the_seven_variants_that_are_compared_by_default_have_the_names_that_users_know():
    first = [
        "fp32",
        "bf16",
        "pytorch_dynamic_int8",
        "int8_symmetric",
        "int8_asymmetric",
        "int4_group128",
        "int4_group64",
    ]
    assert [name for name, variant in VARIANTS.items() if variant.is_default("cpu")] == first
    on_cuda = [name for name, variant in VARIANTS.items() if variant.is_default("cuda")]
    assert on_cuda[: len(first)] == first and {"fp8", "int8_w8a8", "int4_w4a8"} <= set(on_cuda)


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].method != "cast"])
def test_a_foreign_model_is_quantized_in_place_and_still_takes_its_own_inputs(name):
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.LayerNorm(256)).eval()
    original, x = copy.deepcopy(model), torch.randn(32, 256)
    assert vggt_quant.quantize_model(model, name) is model
    assert len(packed_layers(model)) == 2
    assert model(x).dtype == torch.float32
    # Two layers in float8, whose products keep 28 dB each.
    floor_db = 15 if "int4" in name or "nf4" in name else 24 if "fp8" in name else 30
    assert decibels.sqnr_db(original(x), model(x)) > floor_db


@pytest.mark.parametrize(
    "name", [name for name in VARIANTS if VARIANTS[name].method != "cast" and not VARIANTS[name].optional]
)
def test_vggt_stays_close_to_fp32(name):
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    original, model = (load_pretrained(resolve("nano-random")) for _ in range(2))
    done = quantize.run(model, VARIANTS[name], dtype=getattr(torch, VARIANTS[name].dtype))
    assert set(done.sqnr_db) == set(done.selection.quantized) == set(packed_layers(model))
    with torch.inference_mode():
        expected, got = original(images), model(images)
    assert got["depth"].dtype == torch.float32
    assert decibels.sqnr_db(expected["depth"].log(), got["depth"].log()) > (8 if "int4" in name else 15)


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


def test_a_layer_stays_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval()
    vggt_quant.quantize_model(model, "int8_symmetric")
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["int8_symmetric", "int8_asymmetric", "int4_group128", "int4_group64"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_stays_in_it(name, dtype):
    model, x = nn.Sequential(nn.Linear(256, 256)).to(dtype), torch.randn(8, 256).to(dtype)
    expected = model(x)
    vggt_quant.quantize_model(model, name)
    assert model(x).dtype == model[0].bias.dtype == dtype
    assert decibels.sqnr_db(expected, model(x)) > (15 if "int4" in name else 30)


def test_a_buffer_that_two_modules_share_stays_one():
    model = nn.ModuleList([nn.Linear(64, 64), nn.Module(), nn.Module()])
    shared = torch.ones(3)
    for module in model[1:]:
        module.register_buffer("table", shared)
    vggt_quant.quantize_model(model, "int8_symmetric", dtype=torch.bfloat16)
    assert model[1].table is model[2].table
    assert model[1].table.dtype == torch.bfloat16


def test_a_container_only_changes_the_names():
    inner = nn.Sequential(nn.Linear(64, 64), nn.MultiheadAttention(64, 4))
    done = quantize.run(nn.DataParallel(inner), VARIANTS["int8_symmetric"], dtype=None)
    assert set(done.sqnr_db) == {"module.0"}


def test_a_second_variant_takes_what_the_first_one_kept():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    first = Variant(
        name="half", method="round_to_nearest", config={"format": "w8a16"}, policy={"keep": {"1": "for the second"}}
    )
    vggt_quant.quantize_model(model, first)
    vggt_quant.quantize_model(model, "int4_group64")
    assert {name: layer.format for name, layer in packed_layers(model).items()} == {"0": "w8a16", "1": "w4a16"}
    with pytest.raises(ValueError, match="2 layers of the model are packed already"):
        vggt_quant.quantize_model(model, "int8_symmetric")


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].method != "cast"])
def test_a_quantized_layer_is_freed_before_the_next_one_is_made(name):
    """Without the help of the garbage collector, which may come by only after the last layer of a large model."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    old = [weakref.ref(layer.weight) for layer in model]
    gc.disable()
    try:
        vggt_quant.quantize_model(model, name)
        assert [weight() for weight in old] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["bf16", "int8_symmetric", "pytorch_dynamic_int8"])
def test_models_without_values_are_refused_and_left_as_they_are(name):
    with torch.device("meta"):
        on_meta = nn.Sequential(nn.Linear(64, 64))
    with pytest.raises(ValueError, match=r"0\.weight is on the meta device"):
        vggt_quant.quantize_model(on_meta, name, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"1\.weight has no size yet"):
        vggt_quant.quantize_model(nn.Sequential(nn.Linear(64, 64), nn.LazyLinear(64)), name)
    assert type(on_meta[0]) is nn.Linear


def test_dynamic_int8_refuses_half_precision_before_it_touches_a_layer():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64).half())
    with pytest.raises(ValueError, match=r"1 is torch\.float16 on cpu.*float\(\) first"):
        vggt_quant.quantize_model(model, "pytorch_dynamic_int8")
    assert type(model[0]) is nn.Linear


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
        (
            Variant(name="v", method="round_to_nearest", config={"format": "w4a16"}),
            "Variant v: config: w4a16 needs a group_size, e.g. 128",
        ),
        (Variant(name="v", method="round_to_nearest", config={"format": "w9"}), "w9"),
        (Variant(name="v", method="round_to_nearest", config={"format": "w4a16", "group_size": "64"}), "but is '64'"),
        (
            Variant(name="v", method="round_to_nearest", config={"format": "w4a16", "group_size": 0}),
            "group_size should be a whole number from 1 or null, but is 0",
        ),
        (
            Variant(name="v", method="round_to_nearest", config={"format": "w8a16", "zero_points": "no"}),
            "zero_points should be true or false, but is 'no'",
        ),
        (
            Variant(name="v", method="cast", config={"bits": 3}),
            "Variant v: the method cast has no settings, but config has 'bits'; leave it out",
        ),
    ],
)
def test_impossible_variants_are_refused_by_name(variant, words):
    with pytest.raises(ValueError, match=words):
        vggt_quant.quantize_model(nn.Sequential(nn.Linear(32, 32)), variant)


def test_a_model_without_linears_is_refused():
    with pytest.raises(ValueError, match=r"finds nothing to quantize: the model has no nn\.Linear"):
        vggt_quant.quantize_model(nn.Sequential(nn.Conv2d(3, 3, 3)), "int8_symmetric")
    with pytest.raises(ValueError, match="2 Linears and all are kept, most of them because: narrower than 16"):
        vggt_quant.quantize_model(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 3)), "int8_symmetric")


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
        ("a: {method: cast, dtyp: x}", r"variants.yaml: variant a: there is no key 'dtyp' \(did you mean 'dtype'\?\)"),
        ("a: {dtype: float32}", "variant a: the key 'method' is missing"),
        ("a: {method: cast, name: b}", "variant a: there is no key 'name'; the keys are method, config, dtype, "),
        ("a: {method: cast, dtype: bf16}", r"dtype should be one of .*, but is 'bf16' \(did you mean 'bfloat16'\?\)"),
        ("- a", "should map names of variants to their settings, but holds list"),
        ("", "should map names of variants to their settings, but holds nothing"),
        ("a: 3", "should be a mapping"),
        ("a: [", "Cannot read the variants in .*variants.yaml: line 2, column 1: did not find expected node content."),
        ("a: {method: cast}\nb: {method: cast}\na: {method: cast}", "line 3, column 1: a is there twice"),
        ("a: {method: cast, run: {tf32: true, tf32: false}}", "line 1, column 37: tf32 is there twice"),
        (
            "my variant: {method: cast}",
            "the name of a variant should be letters, .*, but is 'my variant'",
        ),
        ("a: {method: cast, config: \xe4}", "Cannot read"),  # Latin-1, as written below
        ("8: {method: cast}", "the name of a variant should be letters, .*, but is 8"),
        ("a: {method: cast, optional: maybe}", "optional should be true or false, but is 'maybe'"),
        (
            "a: {method: cast, memory_limit_mb: lots}",
            "memory_limit_mb should be a whole number from 1 or null, but is",
        ),
        ("a: {method: cast, default: 1}", "default should be one of true, false, cpu, cuda, but is 1"),
        ("a: {method: cast, run: fast}", "run should be a mapping, but is 'fast'"),
        ("a: {method: cast, run: {engin: fast}}", "variant a: run: there is no key 'engin'"),
        ("a: {method: cast, run: {tf32: true}}", "variant a: run: tf32 goes with engine: plain only"),
        ("a: {method: cast, run: {engine: plain, tf32: true}}", "run.tf32 goes with dtype: float32 only"),
    ],
)
def test_a_wrong_variants_file_is_refused(tmp_path, text, words):
    path = tmp_path / "variants.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        find_variant("a", path)


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].method != "cast"])
def test_a_quantized_track_head_still_follows_points(name):
    model = load_pretrained(resolve("nano-random"))
    quantize.run(model, VARIANTS[name], dtype=getattr(torch, VARIANTS[name].dtype))
    assert any(layer.startswith("track_head.") for layer in packed_layers(model))
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[20.0, 30.0], [60.0, 70.0]])
    with torch.inference_mode():
        outputs = model(images, points)
    assert all(torch.isfinite(outputs[key]).all() for key in ("track", "vis", "conf"))
    assert torch.equal(outputs["track"][0, 0], points)  # frame 0 is forced to the query
