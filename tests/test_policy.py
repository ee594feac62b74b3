"""Every Linear is quantized or kept with a reason."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from vggt_quant.model import NAMED, VGGT
from vggt_quant.quantization.policy import select
from vggt_quant.results.validation import build
from vggt_quant.variants import Policy


def on_meta(name):
    with torch.device("meta"):
        return VGGT(NAMED[name])


def test_at_least_91_point_5_percent_of_vggt_1b_is_quantized():
    model = on_meta("vggt-1b")
    selection = select(model, Policy())
    quantized = sum(model.get_submodule(name).weight.numel() for name in selection.quantized)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == 1_256_537_516
    assert quantized / total >= 0.915


def test_every_linear_of_vggt_1b_is_sorted_and_the_24_out_projections_are_kept():
    model = on_meta("vggt-1b")
    selection = select(model, Policy())
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert len(linears) == 387
    assert linears == set(selection.quantized) | set(selection.kept)
    assert sum("PyTorch reads" in reason for reason in selection.kept.values()) == 24
    assert selection.kept["camera_head.pose_branch.fc2"] == "writes the nine pose numbers"


def test_a_pattern_of_the_user_keeps_layers_with_his_reason():
    policy = Policy(keep={"*blocks.0.*": "the first block is sensitive"})
    selection = select(on_meta("nano"), policy)
    assert selection.kept["aggregator.frame_blocks.0.attn.qkv"] == "the first block is sensitive"
    assert "aggregator.frame_blocks.1.attn.qkv" in selection.quantized
    assert "camera_head.pose_branch.fc2" in selection.kept


def test_layers_that_pytorch_reads_directly_are_kept_in_any_model():
    model = nn.Sequential(nn.TransformerEncoderLayer(32, 4), nn.MultiheadAttention(32, 4), nn.Linear(32, 32))
    assert select(model, Policy()).quantized == ["2"]


def test_narrow_layers_are_kept():
    model = nn.Sequential(nn.Linear(32, 15), nn.Linear(15, 32), nn.Linear(32, 16))
    assert select(model, Policy()).quantized == ["2"]
    assert select(model, Policy(min_features=0)).quantized == ["0", "1", "2"]


def old_weight_norm(linear):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in many models
        return nn.utils.weight_norm(linear)


def pruned(linear):
    return prune.l1_unstructured(linear, "weight", 0.5)


def hooked(linear):
    linear.register_forward_hook(lambda module, inputs, output: output)
    return linear


def patched(linear):
    linear.forward = lambda x: x
    return linear


def subclassed(linear):
    return type("LoRALinear", (nn.Linear,), {})(linear.in_features, linear.out_features)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (old_weight_norm, "its weight is computed"),
        (parametrizations.weight_norm, "ParametrizedLinear is not a plain Linear"),
        (pruned, "its weight is computed"),
        (hooked, "it has hooks"),
        (patched, "an overridden forward"),
        (subclassed, "LoRALinear is not a plain Linear"),
        (lambda linear: nn.Linear(32, 32, dtype=torch.complex64), "its weight is torch.complex64"),
    ],
)
def test_a_layer_that_is_more_than_its_weight_is_kept(change, reason):
    selection = select(nn.Sequential(change(nn.Linear(32, 32)), nn.Linear(32, 32)), Policy())
    assert selection.quantized == ["1"]
    assert reason in selection.kept["0"]


def test_a_layer_that_shares_its_weight_with_an_embedding_is_kept():
    model = nn.ModuleDict({"embed": nn.Embedding(64, 32), "head": nn.Linear(32, 64), "free": nn.Linear(32, 64)})
    model["head"].weight = model["embed"].weight
    selection = select(model, Policy())
    assert selection.quantized == ["free"]
    assert "shares its weight" in selection.kept["head"]


def test_a_pattern_on_any_of_a_layers_names_keeps_it():
    model = nn.ModuleDict({"first": nn.Linear(32, 32)})
    model["second"] = model["first"]
    assert select(model, Policy()).quantized == ["first"]
    assert select(model, Policy(keep={"second": "asked for"})).kept == {"first": "asked for"}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"keeep": {}}, "there is no key 'keeep' (did you mean 'keep'?); the keys are keep, min_features."),
        ({"keep": ["a"]}, "policy: keep should be a mapping, but is ['a']."),
        ({"keep": {"a": None}}, "policy: keep.a should be text that is not empty, but is null."),
        ({"keep": {1: "a"}}, "policy: keep.1 should be text that is not empty, but is 1."),
        ({"min_features": "x"}, "policy: min_features should be a whole number from 0, but is 'x'."),
        ({"min_features": True}, "policy: min_features should be a whole number from 0, but is true."),
    ],
)
def test_a_wrong_policy_is_refused_with_its_place(data, sentence):
    with pytest.raises(ValueError) as caught:
        build(Policy, data, "policy")
    assert sentence in str(caught.value)
