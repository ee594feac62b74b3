"""One conformance suite over every format that is found: a new format brings no new test file."""

import copy

import pytest
import torch
from torch import nn

from vggt_quant import formats, methods, rounding
from vggt_quant.kernels import reference

SHAPES = [(16, 16), (9, 17), (192, 1000), (64, 128), (33, 130)]
SETTINGS = {
    "w8a16": [{}, {"zero_points": True}],
    "w4a16": [{"group_size": 128}, {"group_size": 64}, {"group_size": 48, "zero_points": True}],
    "pytorch_dynamic_int8": [{}],
}
CASES = [(name, settings, shape) for name in SETTINGS for settings in SETTINGS[name] for shape in SHAPES]


def pack(name, settings, shape, *, bias=True, dtype=torch.float32):
    """A Linear and its packed twin."""
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0], bias=bias).requires_grad_(False)
    model = nn.Sequential(copy.deepcopy(linear))
    if name == "pytorch_dynamic_int8":
        method = methods.get("pytorch_dynamic")
        config = method.Config()
    else:
        method = methods.get("round_to_nearest")
        config = method.Config(format=name, **settings)
    method.quantize(model, ["0"], config, None)
    return linear, model[0]


def test_every_format_is_covered_by_this_suite():
    assert set(SETTINGS) == set(formats.names())


@pytest.mark.parametrize(("name", "settings", "shape"), CASES)
def test_forward_multiplies_by_the_dequantized_weight(name, settings, shape):
    linear, packed = pack(name, settings, shape)
    x = torch.randn(2, 5, shape[1])
    expected = nn.functional.linear(x, packed.dequantized(), linear.bias)
    # fp32 rounding for weight-only formats; int8 activations (one scale per tensor) cost the dynamic one 1 percent.
    tolerance = 0.03 if name == "pytorch_dynamic_int8" else 1e-5
    assert (packed(x) - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("name", "settings", "shape"), CASES)
def test_tensors_and_fields_rebuild_the_layer_bit_for_bit(name, settings, shape):
    _, packed = pack(name, settings, shape)
    again = type(packed).from_tensors(packed.fields(), packed.tensors())
    x = torch.randn(3, shape[1])
    assert torch.equal(again(x), packed(x))
    assert torch.equal(again.dequantized(), packed.dequantized())


@pytest.mark.parametrize(("name", "settings", "shape"), CASES)
def test_packed_bytes_are_the_bytes_of_the_stored_tensors(name, settings, shape):
    linear, packed = pack(name, settings, shape)
    stored = sum(tensor.nbytes for key, tensor in packed.tensors().items() if key != "bias")
    assert packed.packed_bytes() == stored
    assert packed.num_weights == linear.weight.numel()
    assert (packed.out_features, packed.in_features) == shape


@pytest.mark.parametrize(("name", "settings"), [(n, s) for n in ("w8a16", "w4a16") for s in SETTINGS[n]])
def test_weight_only_formats_run_in_the_type_of_their_input_and_of_autocast(name, settings):
    linear, packed = pack(name, settings, (64, 128), bias=True)
    x = torch.randn(4, 128)
    assert packed(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(x).dtype == linear(x).dtype == torch.bfloat16
    # bf16 keeps 8 bits of weights, activations and sums.
    assert (packed(x.bfloat16()).float() - packed(x)).abs().max() <= 0.02 * packed(x).abs().max()


@pytest.mark.parametrize(("name", "settings"), [(n, s) for n in ("w8a16", "w4a16") for s in SETTINGS[n]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_change_of_type_leaves_scales_as_they_are(name, settings, dtype):
    """Scales of small weights are below what float16 can hold; they must survive `model.half()`."""
    linear = nn.Linear(128, 64, bias=False).requires_grad_(False)
    linear.weight *= 1e-4
    model = nn.Sequential(linear)
    methods.get("round_to_nearest").quantize(
        model, ["0"], methods.get("round_to_nearest").Config(format=name, **settings), None
    )
    x, before = torch.randn(4, 128), model[0].dequantized()
    expected = model(x)
    model.to(dtype)
    assert torch.equal(model[0].dequantized(), before)
    # Weights of 1e-5 are subnormal in float16: half of its smallest step, 2^-25, is 0.3 percent of them.
    assert (model(x.to(dtype)).float() - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dynamic_int8_answers_in_the_type_of_its_input(dtype):
    _, packed = pack("pytorch_dynamic_int8", {}, (64, 128))
    x = torch.randn(4, 128).to(dtype)
    assert torch.equal(packed(x), packed(x.float()).to(dtype))


@pytest.mark.parametrize("name", ["w8a16", "w4a16"])
def test_shapes_can_be_inferred_on_the_meta_device(name):
    _, packed = pack(name, SETTINGS[name][0], (64, 128))
    assert packed.to("meta")(torch.zeros(3, 128, device="meta")).shape == (3, 64)


@pytest.mark.parametrize("name", sorted(SETTINGS))
@pytest.mark.parametrize("part", ["weight_packed", "weight_scale", "bias"])
def test_tensors_that_are_missing_unknown_or_of_another_type_are_refused(name, part):
    _, packed = pack(name, SETTINGS[name][0], (64, 128))
    tensors = packed.tensors()
    bad = [{**tensors, "other": tensors[part]}, {**tensors, part: tensors[part].reshape(-1)[:1].reshape(1, 1, 1)}]
    if part != "bias":
        bad += [{**tensors, part: tensors[part].to(torch.float16)}, {k: v for k, v in tensors.items() if k != part}]
    for wrong in bad:
        with pytest.raises(ValueError, match="should have"):
            type(packed).from_tensors(packed.fields(), wrong)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_layer_without_bias_stays_without(name):
    _, packed = pack(name, SETTINGS[name][0], (64, 128), bias=False)
    assert "bias" not in packed.tensors()
    assert packed(torch.zeros(1, 128)).abs().max() == 0


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_tensors_of_another_size_are_refused(name):
    _, packed = pack(name, SETTINGS[name][0], (64, 128))
    with pytest.raises(ValueError, match="should have"):
        type(packed).from_tensors({**packed.fields(), "in_features": 256}, packed.tensors())


def test_an_unknown_format_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"w5a16.*w4a16"):
        formats.get("w5a16")


@pytest.mark.parametrize("columns", [1, 2, 7, 128])
def test_nibbles_survive_packing(columns):
    nibbles = torch.randint(0, 16, (5, columns), dtype=torch.int16)
    packed = reference.pack_int4(nibbles)
    assert packed.shape == (5, (columns + 1) // 2)
    assert torch.equal(reference.unpack_int4(packed, columns).to(torch.int16), nibbles)


def test_sizes_on_a_wide_layer_meet_the_promise():
    weight = torch.randn(1024, 4096)
    for name, settings, limit in (
        ("w8a16", {}, 1.01),
        ("w8a16", {"zero_points": True}, 1.01),
        ("w4a16", {"group_size": 128}, 0.52),
        ("w4a16", {"group_size": 64}, 0.536),
    ):
        packed = formats.get(name).PackedLinear
        grid = rounding.fit(weight, bits=packed.bits, **settings)
        layer = packed.from_integers(rounding.to_integers(weight, grid), grid, None)
        assert layer.packed_bytes() / layer.num_weights <= limit
