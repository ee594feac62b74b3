"""What a VGGTConfig reads, writes and refuses."""

from __future__ import annotations

import json

import pytest

from vggt_quant.model import NAMED, VGGTConfig


@pytest.mark.parametrize("name", NAMED)
def test_a_config_survives_json(name: str) -> None:
    assert VGGTConfig.from_dict(json.loads(json.dumps(NAMED[name].to_dict()))) == NAMED[name]


def test_the_hubs_config_means_vggt_1b() -> None:
    settings = {"img_size": 518, "patch_size": 14, "embed_dim": 1024, "enable_track": False, "model_type": "vggt"}
    config = VGGTConfig.from_dict(settings)
    assert config.track_head is None
    assert VGGTConfig.from_dict(settings | {"enable_track": True}) == NAMED["vggt-1b"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"embed_dim": 512}, "embed_dim is 512"),
        ({"aggregator": {"depth": 0}}, "aggregator.depth is 0"),
        ({"aggregator": {"aa_order": ["global", "frame"]}}, "aggregator.aa_order is"),
        ({"aggregator": {"width": 3}}, "aggregator.width is 3; this key is unknown"),
        ({"aggregator": {}, "colour": "red"}, "colour is 'red'; this key is unknown"),
        ({"aggregator": {"num_heads": 7}}, "num_heads is 7"),
        ({"aggregator": {}, "image_mean": [0, 0, 0]}, "image_mean is"),
        ({"aggregator": {}, "patch_embed": {"type": "resnet"}}, "patch_embed.type is 'resnet'"),
        ({"aggregator": {}, "camera_head": {"dim_in": 64}}, "camera_head.dim_in is 64"),
        ({"aggregator": {}, "track_head": {"intermediate_layer_idx": [0, 1, 2, 24]}}, "has 24 layers"),
        ({"aggregator": {}, "depth_head": {"activation": "exp"}}, "add .'output_dim'"),
        ({"aggregator": {"depth": True}}, "aggregator.depth is True; give a positive whole number"),
        ({"aggregator": {"mlp_ratio": float("nan")}}, "aggregator.mlp_ratio is nan; give a positive number"),
        ({"aggregator": {}, "patch_embed": None}, "patch_embed is None; give a mapping of settings"),
        ({"aggregator": {}, "img_size": "518"}, "img_size is '518'; give a positive whole number"),
        ({"img_size": 0}, "img_size is 0; give a positive whole number"),
        (
            {"aggregator": {}, "track_head": {"out_channels": [1, 2, 3]}},
            "out_channels is .1, 2, 3.; give four positive",
        ),
        ({"aggregator": {}, "img_size": 500}, "img_size is 500; give a multiple of patch_size 14"),
    ],
)
def test_an_impossible_setting_is_named_with_its_value(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        VGGTConfig.from_dict(settings)
