"""Other libraries' formats: what they are handed, what they answer where they are installed, and why not elsewhere."""

import copy
import importlib.util

import pytest
import torch
from test_formats import PEERS, pack, packed_twin
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference import engine
from vggt_quant.inference.attention import _choice as attention
from vggt_quant.inference.engine import UnsupportedError, compiled, open_checkpoint, ready
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, formats, methods, quantize
from vggt_quant.quantization.formats._integers import Int8
from vggt_quant.quantization.formats._library import Library
from vggt_quant.quantization.formats._spec import FormatSpec
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results import decibels
from vggt_quant.variants import RunSettings, load_variants

PLAIN = RunSettings(engine="plain")
VARIANTS = {name: variant for name, variant in load_variants().items() if variant.optional}
CPU = torch.device("cpu")


class PackedLinear(Library, Int8):
    """A library that stands for those which rearrange weights: it makes a Linear of its own."""

    format, library, product = "copying", "torch", "a Linear"
    spec = FormatSpec(bits=8, distribution="torch")
    rearranges = True

    def hand_over(self, device):
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device=device)
        linear.weight = nn.Parameter(self.dequantized(), requires_grad=False)
        return linear

    def call(self, made, x_MK, bias_N):
        return made(x_MK) + bias_N


def copying():
    """Such a layer, and the w8a16 layer with the same tensors."""
    _, packed = pack("w8a16", {}, (64, 128))
    fields = {"in_features": 128, "out_features": 64}
    return PackedLinear.from_tensors(fields, packed.tensors()), packed


def test_memory_is_the_librarys_where_it_rearranges_weights():
    layer, packed = copying()
    assert checkpoint.memory_bytes(nn.Sequential(packed)) == packed.packed_bytes() + packed.bias.nbytes
    assert sum(buffer.nbytes for buffer in layer.buffers()) + layer.hidden_bytes() == 64 * 128 * 4 + layer.bias.nbytes


def test_a_layer_whose_weights_were_rearranged_still_gives_its_tensors_and_takes_others():
    layer, packed = copying()
    x = torch.randn(3, 128)
    assert torch.allclose(layer(x), packed(x), atol=1e-5)
    assert all(torch.equal(layer.tensors()[name], tensor) for name, tensor in packed.tensors().items())
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    other = packed_twin("w8a16", {}, nn.Linear(128, 64).requires_grad_(False))
    layer.load_state_dict(other.state_dict())
    assert torch.allclose(layer(x), other(x), atol=1e-5)


def test_torchao_int8_is_as_exact_as_what_torchao_makes_itself():
    quantization = pytest.importorskip("torchao.quantization")
    linear, packed = pack("torchao_int8", {}, (512, 1024))
    own = nn.Sequential(copy.deepcopy(linear).bfloat16())
    quantization.quantize_(own, quantization.Int8DynamicActivationInt8WeightConfig())
    x = torch.randn(256, 1024).bfloat16()
    exact = nn.functional.linear(x.float(), linear.weight, linear.bias)
    ours, theirs = decibels.sqnr_db(exact, packed(x)), decibels.sqnr_db(exact, own(x))
    assert "torchao" in packed.kernel(CPU)
    assert ours > 37
    # Both round to nearest; our scales are rounded to bfloat16, the library's weights were.
    assert abs(ours - theirs) < 0.5


def test_torchao_takes_our_bytes_as_they_are():
    pytest.importorskip("torchao")
    _, packed = pack("torchao_int8", {}, (64, 128))
    loaded = type(packed).from_tensors(packed.fields(), packed.tensors())
    assert loaded.hidden_bytes() == 64 * 4  # its scales are float32


def handed_to_torchao(packed):
    """[N, K]: what torchao's kernel computes of what it is handed, by its formula."""
    nibbles, both_GN2 = packed.nibbles(), packed.scales_and_zeros().float()
    codes = torch.stack((nibbles >> 4, nibbles & 15), dim=2).flatten(1).float()
    scale_NK, zero_NK = (part.t().repeat_interleave(packed.group_size, 1) for part in both_GN2.unbind(-1))
    return ((codes - 8) * scale_NK + zero_NK)[: packed.out_features, : packed.in_features]


@pytest.mark.parametrize("settings", PEERS["torchao_int4"])
@pytest.mark.parametrize("shape", [(9, 192), (64, 1024), (16, 1100)])
def test_torchao_int4_is_handed_the_weights_that_the_format_stands_for(settings, shape):
    _, packed = pack("torchao_int4", settings, shape)
    exact = packed.dequantized()
    # Zeros are up to 8 steps and rounded to bfloat16: a 64th of a step.
    assert (handed_to_torchao(packed) - exact).abs().max() <= packed.weight_scale.abs().max() / 32
    assert packed.nibbles().shape[1] % 512 == packed.nibbles().shape[0] % 8 == 0


@pytest.mark.parametrize(("name", "bits"), [("humming_int8", 8), ("humming_int4", 4)])
def test_humming_is_handed_integers_with_an_offset_lowest_bits_first(name, bits):
    _, packed = pack(name, PEERS[name][0], (64, 128))
    shifts = torch.arange(0, 32, bits)
    codes = ((packed.words()[:, :, None] >> shifts) & (2**bits - 1)).flatten(1) - 2 ** (bits - 1)
    scale = packed.weight_scale.float().repeat_interleave(128 // packed.weight_scale.shape[1], 1)
    assert torch.equal(codes * scale, packed.dequantized())


def test_weights_in_nf4_take_the_nearest_value():
    linear, packed = pack("bitsandbytes_nf4", {}, (64, 128))
    scale = packed.weight_scale.repeat_interleave(64).view(64, 128)
    values = torch.tensor(formats.get("bitsandbytes_nf4").VALUES)
    nearest = (linear.weight[..., None] / scale[..., None] - values).abs().amin(-1) * scale
    assert torch.allclose((packed.dequantized() - linear.weight).abs(), nearest, atol=1e-6)
    assert decibels.sqnr_db(linear.weight, packed.dequantized()) > 18


def test_nf4_is_what_bitsandbytes_makes_itself():
    functional = pytest.importorskip("bitsandbytes.functional")
    linear, packed = pack("bitsandbytes_nf4", {}, (64, 128))
    codes, state = functional.quantize_4bit(linear.weight, blocksize=64, quant_type="nf4")
    assert torch.equal(codes.flatten(), packed.weight_packed)
    assert torch.equal(state.absmax, packed.weight_scale)


@pytest.mark.parametrize("name", ["torchao_int8", "bitsandbytes_int8", "humming_int8", "humming_int4"])
def test_zero_points_are_refused_where_the_library_would_ignore_them(name):
    settings = {"zero_points": True} | PEERS[name][0]
    with pytest.raises(ValueError, match=f"{name} multiplies no weights with zero points"):
        pack(name, settings, (64, 128))


def test_a_method_refuses_another_methods_format():
    words = "format is 'pytorch_dynamic_int8', which is written by the method pytorch_dynamic only, not by round_to_nea"
    with pytest.raises(ValueError, match=words):
        methods.get("round_to_nearest").Config(format="pytorch_dynamic_int8")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The checkpoint of every peer."""
    cache, nano = tmp_path_factory.mktemp("cache"), prepare_model("nano-random")
    return {name: make_checkpoint(nano, variant, cache, "cpu").checkpoint for name, variant in VARIANTS.items()}


@pytest.mark.parametrize("name", list(PEERS))
def test_a_missing_library_is_said_and_leaves_the_plain_twin(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _, packed = pack(name, PEERS[name][0], (64, 128))
    assert packed.unsupported(CPU) == f"{name} needs {packed.spec.distribution}, which is not installed"
    assert packed.kernel(CPU) == "reference"
    x = torch.randn(3, 128)
    assert torch.equal(packed(x), nn.functional.linear(x, packed.dequantized(), packed.bias))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_peer_runs_or_says_why_not(paths, name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = VARIANTS[name].run
    with pytest.raises(UnsupportedError, match=r"runs on cuda only, not on cpu|needs \w+, which is not installed"):
        open_checkpoint(paths[name], "cpu", run)
    if name == "sageattention":
        assert attention.unsupported(CPU, 64, run.attention) == "it is not installed"


def test_peers_that_differ_in_how_they_run_share_a_checkpoint(paths):
    assert paths["torchao_int8"] == paths["torchao_int8_compiled"]
    assert paths["torchao_fp8"] == paths["torchao_fp8_compiled"]
    assert len(set(paths.values())) == len(paths) - 2


def test_torchao_runs_a_whole_checkpoint_on_the_cpu(paths):
    pytest.importorskip("torchao")
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    opened = open_checkpoint(paths["torchao_int8"], "cpu", PLAIN)
    assert opened.kernels["torchao_int8"].startswith("torchao ")
    exact = load_pretrained(resolve("nano-random"))
    with torch.inference_mode():
        expected = exact(images)
    assert decibels.sqnr_db(expected["depth"].log(), opened.run(images)["depth"].log()) > 15  # as w8a8


def test_blocks_of_a_kind_share_their_compiled_code():
    pytest.importorskip("torchao")
    model, images = load_pretrained(resolve("nano-random")), torch.rand(3, 3, 56, 56)
    quantize.run(model, VARIANTS["torchao_int8"], dtype=torch.bfloat16)
    run = ready(model, "cpu", PLAIN).run
    expected, counter = run(images), CompileCounterWithBackend("eager")
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):  # too few, were they kept
        forward = compiled(model, counter)
        with torch.inference_mode():
            assert torch.equal(forward(images)["depth"], expected["depth"])
            assert counter.frame_count == 3  # five blocks: of images, of frames, of all frames
            forward(images)
            assert counter.frame_count == 3
            forward(images[:2])
            assert counter.frame_count == 6
    torch._dynamo.reset()


def test_every_peer_has_a_variant():
    used = {methods.config_of(variant).packs for variant in VARIANTS.values()}
    assert set(PEERS) == used - {None}
    assert {variant.method for variant in VARIANTS.values()} == {"cast", "round_to_nearest"}
    assert not any(variant.is_default(device) for variant in VARIANTS.values() for device in ("cpu", "cuda"))
    assert all(engine.device_kinds(name) for name in PEERS)
