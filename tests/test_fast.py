"""The fast pass: VGGT's outputs, as close to float32 as plain bfloat16 is. Interpreted on the CPU, so in miniature."""

import copy
import dataclasses
import sys

import pytest
import torch
from fast_cases import as_close_as_plain, dequantized, run, shapes
from kernel_cases import INTERPRETED
from test_formats import SETTINGS, packed_twin

from vggt_quant.model import VGGT
from vggt_quant.model.config import AggregatorConfig, CameraHeadConfig, DenseHeadConfig, PatchEmbedConfig, VGGTConfig
from vggt_quant.model.dpt_head import activate_dense
from vggt_quant.model.layers import TableCache
from vggt_quant.model.weights import random_weights
from vggt_quant.quantization.formats.base import packed_layers, replace
from vggt_quant.quantization.policy import select
from vggt_quant.results import decibels

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.inference import fast
from vggt_quant.inference.attention import _choice as attention
from vggt_quant.inference.fast.dense_head import FRAMES_PER_CHUNK, FastDenseHead
from vggt_quant.variants import Policy

CPU = torch.device("cpu")
FORMATS = [(name, one) for name in SETTINGS if name != "pytorch_dynamic_int8" for one in SETTINGS[name]]
LEVELS = dict(dim_in=64, features=16, out_channels=(16, 16, 32, 32), intermediate_layer_idx=(0, 0, 1, 1), patch_size=4)
CONFIG = VGGTConfig(
    img_size=16,
    patch_size=4,
    embed_dim=32,
    patch_embed=PatchEmbedConfig(depth=1, num_heads=2, num_register_tokens=1),
    aggregator=AggregatorConfig(depth=2, num_heads=2, num_register_tokens=1, init_values=0.3),
    camera_head=CameraHeadConfig(dim_in=64, trunk_depth=1, num_heads=4, init_values=0.3, num_iterations=2),
    depth_head=DenseHeadConfig(output_dim=2, activation="exp", **LEVELS),
    point_head=DenseHeadConfig(output_dim=4, activation="inv_log", **LEVELS),
    track_head=None,
)
CONV = dataclasses.replace(CONFIG, patch_embed=PatchEmbedConfig(type="conv"))


def build(config):
    """A model with weights of no special value anywhere, in float32."""
    model = VGGT(config).requires_grad_(False)
    for name, tensor in model.state_dict().items():
        tensor.copy_(random_weights.random_tensor(name, tensor.shape, seed=0))
    if model.camera_head is not None:
        # A field of view below zero leaves as zero, but goes on to the next iteration as it is.
        model.camera_head.pose_branch.fc2.bias[-1] = -1
    return model


def photos(frames, seed=0):
    return torch.rand(frames, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


@INTERPRETED
@pytest.mark.parametrize(("config", "frames", "scenes"), [(CONV, 2, 2), (CONFIG, 1, 3), (CONFIG, 3, 1)])
def test_the_fast_pass_is_as_close_to_fp32_as_plain_bfloat16(config, frames, scenes):
    fp32 = build(config)
    model = copy.deepcopy(fp32).bfloat16()
    before = copy.deepcopy(model.state_dict())
    got = as_close_as_plain(fp32, model, fast.FastForward(model, CPU), [photos(frames, seed) for seed in range(scenes)])
    # Neither the images nor the model were changed.
    assert torch.equal(got["images"], photos(frames, scenes - 1)[None])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@INTERPRETED
def test_layers_of_every_format_are_multiplied_as_in_the_plain_model():
    """Format after format down the list of layers, so that each stands behind each kind of producer."""
    model = build(CONFIG)
    names = select(model, Policy(min_features=16)).quantized
    for number, name in enumerate(names):
        packed = packed_twin(*FORMATS[number % len(FORMATS)], model.get_submodule(name))
        replace(model, name, packed)
    assert {layer.format for layer in packed_layers(model).values()} == {name for name, _ in FORMATS}
    model = model.bfloat16()
    scenes = [photos(2, seed) for seed in range(2)]
    as_close_as_plain(dequantized(model), model, fast.FastForward(model, CPU), scenes)


@INTERPRETED
def test_heads_that_a_model_lacks_are_missing_from_its_outputs():
    config = dataclasses.replace(CONV, camera_head=None, point_head=None)
    model, images = build(config).bfloat16(), photos(1)
    got = run(fast.FastForward(model, CPU), images)
    assert shapes(got) == shapes(run(model, images))
    assert set(got) == {"depth", "depth_conf", "images"}
    config = dataclasses.replace(CONV, depth_head=None, point_head=None)
    model = build(config).bfloat16()
    assert set(run(fast.FastForward(model, CPU), images)) == {"pose_enc", "pose_enc_list", "images"}


@INTERPRETED
@pytest.mark.parametrize("plane_codes", [True, False])
@pytest.mark.parametrize(("name", "size"), [("depth", (8, 12)), ("point", (16, 4)), ("point", (4, 4))])
def test_a_dense_head_gives_its_models_values_chunk_by_chunk(name, size, plane_codes):
    head = getattr(build(CONFIG), f"{name}_head")
    activation = getattr(CONFIG, f"{name}_head").activation
    head.plane_codes = plane_codes
    frames, tokens = FRAMES_PER_CHUNK + 1, 2 + size[0] * size[1] // 16
    random = torch.Generator().manual_seed(0)
    kept = {layer: torch.randn(frames, tokens, 64, generator=random).bfloat16() for layer in (0, 1)}
    patches = {layer: kept[layer][None, :, 2:].float() for layer in kept}
    exact = activate_dense(run_head(head, patches, size), activation)
    low = copy.deepcopy(head).bfloat16()
    plain = activate_dense(run_head(low, patches, size), activation)
    with torch.inference_mode():
        got = FastDenseHead(low, activation, TableCache()).run(kept, 2, size)
    for one, other, third in zip(exact, plain, got, strict=True):
        assert third.shape == one[0].shape and third.dtype == torch.float32
        plain_db, got_db = decibels.sqnr_db(one, other), decibels.sqnr_db(one[0], third)
        assert got_db >= plain_db - 3 and plain_db >= 20, (plain_db, got_db)
        # Frame by frame, so that a frame out of its place stands out.
        assert min(decibels.sqnr_db(*pair) for pair in zip(one[0], third, strict=True)) >= 20


def run_head(head, patches, size):
    with torch.inference_mode():
        return head(patches, size)


@INTERPRETED
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(1, 3, 9, 12), "9 x 12 pixels"),
        (torch.rand(1, 1, 8, 12), "have shape"),
        (torch.zeros(1, 3, 8, 12, dtype=torch.uint8), "have dtype torch.uint8"),
    ],
)
def test_images_that_the_model_refuses_are_refused_in_its_words(images, words):
    model = build(CONV).bfloat16()
    for forward in (model, fast.FastForward(model, CPU)):
        with pytest.raises(ValueError, match=words):
            run(forward, images)


def replaced(**sections):
    """CONV with other settings in some sections."""
    return dataclasses.replace(
        CONV, **{name: dataclasses.replace(getattr(CONV, name), **settings) for name, settings in sections.items()}
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CONV, None),
        (CONFIG, None),
        (dataclasses.replace(CONV, embed_dim=48, camera_head=None, depth_head=None, point_head=None), "2 heads of 24"),
        (replaced(depth_head={"features": 24}), "24 features of a dense head"),
    ],
)
def test_widths_that_the_kernels_cannot_take_are_named(config, reason):
    found = fast.unsupported(VGGT(config).bfloat16(), CPU)
    assert (reason is None and found is None) or reason in found


def test_a_float32_model_is_not_for_the_fast_pass():
    assert fast.unsupported(VGGT(CONV), CPU) == "its weights are not bfloat16"


@pytest.mark.parametrize(("heads", "reason"), [(4, None), (2, "heads are 128 wide, not 64"), (8, "32 wide")])
def test_float8_attention_asks_for_heads_of_64_in_every_block(heads, reason):
    """The vision transformer's heads may have another width than the aggregator's."""
    config = dataclasses.replace(CONFIG, embed_dim=256, camera_head=None, depth_head=None, point_head=None)
    config = dataclasses.replace(
        config,
        aggregator=dataclasses.replace(CONFIG.aggregator, num_heads=4),
        patch_embed=dataclasses.replace(CONFIG.patch_embed, num_heads=heads),
    )
    model = VGGT(config).bfloat16()
    assert fast.unsupported(model, CPU) is None
    found = fast.unsupported(model, CPU, "float8")
    assert (reason is None and found is None) or reason in found


def test_a_model_of_two_types_is_not_for_the_fast_pass():
    model = VGGT(CONV).bfloat16()
    model.depth_head.float()
    assert fast.unsupported(model, CPU) == "its weights are not bfloat16"


@pytest.mark.parametrize(("major", "width", "name"), [
    (9, 64, "cudnn"), (9, 128, "cudnn"), (9, 4, "torch sdpa"), (9, 12, "torch sdpa"), (10, 256, "torch sdpa"),
    (8, 64, "torch sdpa"),
])  # fmt: skip
def test_cudnn_attends_to_heads_of_widths_that_it_takes(major, width, name, monkeypatch):
    """It raises "No available kernel" at any other."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert attention.usual(torch.device("cuda"), width).title == name


def test_a_flash_attention_built_for_another_torch_is_as_good_as_none(tmp_path, monkeypatch):
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert attention.usual(torch.device("cuda"), 64).title == "cudnn"
