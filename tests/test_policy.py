"""Every Linear is quantized or kept with a reason."""

import pytest
import torch
from torch import nn

from vggt_quant.model import NAMED, VGGT
from vggt_quant.policy import Policy, select


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
    policy = Policy.from_dict({"keep": {"*blocks.0.*": "the first block is sensitive"}})
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


@pytest.mark.parametrize("data", [{"keeep": {}}, {"keep": ["a"]}, {"min_features": "x"}])
def test_a_wrong_policy_is_refused(data):
    with pytest.raises(ValueError, match="policy"):
        Policy.from_dict(data)
