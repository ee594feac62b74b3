"""One conformance suite over every format that is found: a new format brings no new test file.

Formats that a GPU alone runs are run here, too: without one their products are those of the plain twins.
"""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vggt_quant.kernels import torch_reference
from vggt_quant.quantization import formats
from vggt_quant.quantization import grid as grids
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import read_spec
from vggt_quant.quantization.quantize import quantize_model
from vggt_quant.results import decibels
from vggt_quant.variants import Policy, Variant

SHAPES = [(16, 16), (9, 17), (192, 1000), (64, 128), (33, 130)]
EVERY = {name: list(formats.spec(name).examples) for name in formats.names()}
# Formats that another library multiplies, and their plain twins where it is missing.
PEERS = {name: settings for name, settings in EVERY.items() if issubclass(formats.layer(name), Library)}
SETTINGS = {name: settings for name, settings in EVERY.items() if name not in PEERS}
CASES = [(name, settings, shape) for name in EVERY for settings in EVERY[name] for shape in SHAPES]
# PyTorch's own packing apart, which has its own rules.
OURS = [name for name in SETTINGS if name != "pytorch_dynamic_int8"]
WITH_SETTINGS = [(name, settings) for name in OURS for settings in SETTINGS[name]]
EVERY_SETTING = WITH_SETTINGS + [(name, settings) for name in PEERS for settings in PEERS[name]]
NONE_KEPT = Policy(min_features=0)


def pack(name, settings, shape, *, bias=True, dtype=torch.float32):
    """A Linear and its packed twin."""
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0], bias=bias).requires_grad_(False)
    return linear, packed_twin(name, settings, copy.deepcopy(linear))


def packed_twin(name, settings, linear):
    """The packed layer of a Linear, which is the method's to change."""
    method = formats.spec(name).method
    config = {} if method else {"format": name, **settings}
    model = nn.Sequential(linear)
    quantize_model(model, Variant(name=name, method=method or "round_to_nearest", config=config, policy=NONE_KEPT))
    return model[0]


def seen(x, packed):
    """The activations that the layer multiplies: as they are, or rounded to 8 bits row by row."""
    kind = packed.operand
    if kind == "bfloat16":
        return x
    rows = torch_reference.quantize_rows(x.flatten(0, -2), kind)
    values = rows.values_MK.float() - (0 if rows.zero_M is None else rows.zero_M[:, None])
    return (values * rows.scale_M[:, None]).view(x.shape)


def test_every_format_has_examples_for_this_suite():
    assert {"w8a16", "w4a16", "w8a8", "w4a8", "fp8", "pytorch_dynamic_int8"} <= set(SETTINGS)
    assert {"torchao_int8", "torchao_int4", "torchao_fp8", "bitsandbytes_nf4", "humming_int4"} <= set(PEERS)
    assert all(EVERY.values())


@pytest.mark.parametrize(("name", "settings", "shape"), CASES)
def test_forward_multiplies_by_the_dequantized_weight(name, settings, shape):
    linear, packed = pack(name, settings, shape)
    x = torch.randn(2, 5, shape[1])
    expected = nn.functional.linear(seen(x, packed), packed.dequantized(), linear.bias)
    tolerance = max(1e-5, formats.spec(name).kernel_error)  # fp32 rounding
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


@pytest.mark.parametrize(("name", "settings"), EVERY_SETTING)
def test_formats_run_in_the_type_of_their_input_and_of_autocast(name, settings):
    linear, packed = pack(name, settings, (64, 128), bias=True)
    x = torch.randn(4, 128)
    assert packed(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(x).dtype == linear(x).dtype == torch.bfloat16
    # bf16 keeps 8 bits of weights, activations and sums.
    assert (packed(x.bfloat16()).float() - packed(x)).abs().max() <= 0.02 * packed(x).abs().max()


@pytest.mark.parametrize(("name", "settings"), EVERY_SETTING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_change_of_type_leaves_scales_as_they_are(name, settings, dtype):
    """Scales of small weights are below what float16 can hold; they must survive `model.half()`."""
    linear = nn.Linear(128, 64, bias=False).requires_grad_(False)
    linear.weight *= 1e-4
    model = nn.Sequential(packed_twin(name, settings, linear))
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


@pytest.mark.parametrize("name", [*OURS, *PEERS])
def test_shapes_can_be_inferred_on_the_meta_device(name):
    _, packed = pack(name, EVERY[name][-1], (64, 128))
    packed(torch.zeros(3, 128))  # what it derives from its tensors has to move with it
    assert packed.to("meta")(torch.zeros(3, 128, device="meta")).shape == (3, 64)


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("part", ["weight_packed", "weight_scale", "bias"])
def test_tensors_that_are_missing_unknown_or_of_another_type_are_refused(name, part):
    _, packed = pack(name, EVERY[name][0], (64, 128))
    tensors = packed.tensors()
    bad = [{**tensors, "other": tensors[part]}, {**tensors, part: tensors[part].reshape(-1)[:1].reshape(1, 1, 1)}]
    if part != "bias":
        bad += [{**tensors, part: tensors[part].to(torch.float16)}, {k: v for k, v in tensors.items() if k != part}]
    for wrong in bad:
        with pytest.raises(ValueError, match="should have"):
            type(packed).from_tensors(packed.fields(), wrong)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_layer_without_bias_stays_without(name):
    _, packed = pack(name, EVERY[name][0], (64, 128), bias=False)
    assert "bias" not in packed.tensors()
    assert packed(torch.zeros(1, 128)).abs().max() == 0


@pytest.mark.parametrize("name", sorted(EVERY))
def test_tensors_of_another_size_are_refused(name):
    _, packed = pack(name, EVERY[name][0], (64, 128))
    with pytest.raises(ValueError, match="should have"):
        type(packed).from_tensors({**packed.fields(), "in_features": 256}, packed.tensors())


@pytest.mark.parametrize("name", formats.names())
def test_a_layer_uses_what_its_file_declares(name):
    assert formats.layer(name).format == name
    assert formats.layer(name).spec == formats.spec(name)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FACTS = 8", "declares no SPEC = FormatSpec"),
        ("SPEC = FormatSpec(bits=BITS)", "SPEC should be written in literals"),
        ("SPEC = FormatSpec(bits=5)", "SPEC: bits should be one of 4, 8, but is 5"),
        ("SPEC = FormatSpec(bits=4, group=True)", "SPEC: there is no key 'group' (did you mean 'grouped'?)"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_refused_with_its_file(tmp_path, text, sentence):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.py") as caught:
        read_spec(tmp_path / "mine.py")
    assert sentence in str(caught.value)


def test_an_unknown_format_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"w5a16.*w4a16"):
        formats.get("w5a16")


@pytest.mark.parametrize("columns", [1, 2, 7, 128])
def test_nibbles_survive_packing(columns):
    nibbles = torch.randint(0, 16, (5, columns), dtype=torch.int16)
    packed = torch_reference.pack_int4(nibbles)
    assert packed.shape == (5, (columns + 1) // 2)
    assert torch.equal(torch_reference.unpack_int4(packed, columns).to(torch.int16), nibbles)


def test_sizes_on_a_wide_layer_meet_the_promise():
    weight = torch.randn(1024, 4096)
    for name, settings, limit in (
        ("w8a16", {}, 1.01),
        ("w8a16", {"zero_points": True}, 1.01),
        ("w4a16", {"group_size": 128}, 0.52),
        ("w4a16", {"group_size": 64}, 0.536),
    ):
        packed = formats.layer(name)
        grid = grids.fit(weight, bits=packed.spec.bits, **settings)
        layer = packed.from_integers(grids.to_integers(weight, grid), grid, None)
        assert layer.packed_bytes() / layer.num_weights <= limit


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name in EVERY for settings in EVERY[name]])
def test_products_of_normal_data_keep_the_promised_sqnr(name, settings):
    torch.manual_seed(1)
    linear = nn.Linear(1024, 512, bias=False).requires_grad_(False)
    linear.weight.normal_()
    x = torch.randn(256, 1024)
    exact = linear(x)
    assert decibels.sqnr_db(exact, packed_twin(name, settings, linear)(x)) >= formats.spec(name).least_db


def test_the_promises_for_8_and_4_bits_are_not_lowered():
    promised = {"w8a16": 40, "w8a8": 37, "fp8": 28, "w4a16": 18.4, "w4a8": 18.4}
    assert {name: formats.spec(name).least_db for name in promised} == promised


@pytest.mark.parametrize(("name", "settings"), EVERY_SETTING)
def test_rows_far_from_normal_are_multiplied_as_well(name, settings):
    """Rows of zeros, of one value, of 1e4, with one value a thousandfold, and negative ones, each by its own scale."""
    _, packed = pack(name, settings, (64, 128), bias=False)
    x = torch.randn(6, 128)
    x[1], x[2], x[3] = 0, 0.7, 1e4 * x[3]
    x[4, 5], x[5] = 1000, -x[5].abs()
    expected = nn.functional.linear(seen(x, packed), packed.dequantized())
    error = (packed(x) - expected).norm(dim=1)
    tolerance = max(1e-4, formats.spec(name).kernel_error)  # relative to the row, where products cancel
    assert (error <= tolerance * expected.norm(dim=1)).all()


@pytest.mark.parametrize("name", [*OURS, *PEERS])
def test_another_layers_tensors_give_its_answer(name):
    """Whatever a layer made of its tensors at its first call is made anew when it gets others."""
    _, first = pack(name, EVERY[name][-1], (64, 128))
    second = packed_twin(name, EVERY[name][-1], nn.Linear(128, 64).requires_grad_(False))
    x = torch.randn(3, 128)
    assert not torch.equal(first(x), second(x))
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), second(x))
    assert torch.equal(copy.deepcopy(first)(x), second(x))


@pytest.mark.parametrize("name", [*OURS, *PEERS])
def test_an_edit_in_place_or_another_tensor_changes_the_answer(name):
    _, packed = pack(name, EVERY[name][-1], (64, 128), bias=False)
    x = torch.randn(3, 128)
    before = packed(x)
    packed.weight_scale.mul_(2)
    fresh = type(packed).from_tensors(packed.fields(), packed.tensors())
    assert torch.equal(packed(x), fresh(x)) and not torch.allclose(packed(x), before, rtol=0.1)
    packed.weight_scale = packed.weight_scale / 2
    assert torch.equal(packed(x), before)


def test_a_copy_and_a_pickle_of_a_layer_start_without_what_it_derived():
    _, packed = pack("w8a8", {}, (64, 128))
    packed(torch.randn(3, 128))
    assert packed.hidden_bytes() == 4 * 64  # its scales in float32
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert again.hidden_bytes() == 0


@pytest.mark.parametrize(("name", "settings"), EVERY_SETTING)
def test_a_layer_first_run_in_inference_mode_still_runs_with_gradients(name, settings):
    _, packed = pack(name, settings, (64, 128))
    x = torch.randn(3, 128)
    with torch.inference_mode():
        expected = packed(x)
    assert torch.equal(packed(x.requires_grad_()), expected)


def test_a_machine_without_triton_imports_and_runs_every_format_on_the_cpu():
    code = """
import sys
sys.modules["triton"] = None  # importing it fails
import torch, vggt_quant
from vggt_quant.inference import engine
from vggt_quant.kernels import operands, products, torch_reference
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import formats
from test_formats import SETTINGS, pack
for name in SETTINGS:
    _, layer = pack(name, SETTINGS[name][0], (64, 128))
    assert layer(torch.randn(3, 128)).isfinite().all()
model = load_pretrained(resolve("nano-random")).bfloat16()
vggt_quant.quantize_model(model, "int8_symmetric")
outputs = engine.ready(model, "cpu").run(torch.rand(1, 3, 28, 28))
assert outputs["depth"].isfinite().all()
assert not [name for name in sys.modules if name.startswith("triton.")]
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert process.returncode == 0, process.stderr
