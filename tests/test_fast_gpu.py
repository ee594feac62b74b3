"""The engine on a CUDA GPU: the fast pass and its graphs, on the trained small model and at VGGT-1B's sizes."""

import copy
import dataclasses

import pytest
import torch
from fast_cases import as_close_as_plain, dequantized, run, shapes, sqnr_db
from kernel_cases import COMPILED
from test_formats import packed_twin

from vggt_quant.inference import fast
from vggt_quant.inference.engine import UnsupportedError, ready
from vggt_quant.inference.fast import graph
from vggt_quant.model import VGGT
from vggt_quant.model.config import VGGTConfig
from vggt_quant.model.weights import random_weights
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization.formats.base import replace
from vggt_quant.quantization.policy import select
from vggt_quant.variants import Policy, RunSettings

pytestmark = COMPILED
PLAIN = RunSettings(engine="plain")
FORMATS = [
    ("w8a16", {}),
    ("w4a16", {"group_size": 128}),
    ("w8a8", {}),
    ("w8a8", {"zero_points": True}),
    ("w4a8", {"group_size": 128}),
    ("fp8", {}),
]
SMALL, LARGE = (112, 112), (350, 518)


def photos(frames, size=SMALL, seed=0):
    """Grain on a colour, so that two of them differ by far more than rounding."""
    random = torch.Generator().manual_seed(seed)
    colour = torch.rand(frames, 3, 1, 1, generator=random)
    return (0.7 * colour + 0.3 * torch.rand(frames, 3, *size, generator=random)).cuda()


def bfloat16(model, name=None, settings=None):
    """A bfloat16 copy, with all its Linears in a format if one is named."""
    model = copy.deepcopy(model)
    for layer in select(model, Policy()).quantized if name else ():
        replace(model, layer, packed_twin(name, settings, model.get_submodule(layer)))
    return model.bfloat16()


@pytest.fixture(scope="module")
def tiny():
    """The trained small model, in float32."""
    return load_pretrained(resolve("tiny"), device="cuda").requires_grad_(False)


@pytest.fixture(scope="module")
def large():
    """VGGT-1B without its tracker, in float32; random weights, the large ones drawn on the GPU to save a minute."""
    with torch.device("meta"):
        model = VGGT(dataclasses.replace(VGGTConfig(), track_head=None))
    model = model.to_empty(device="cuda").requires_grad_(False)
    random = torch.Generator("cuda").manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.numel() < 100_000:
            tensor.copy_(random_weights.random_tensor(name, tensor.shape, seed=0))
        else:
            tensor.normal_(*random_weights._mean_and_std(name, tensor.shape), generator=random)
    return model


@pytest.fixture(scope="module")
def small_engine(tiny):
    """The fast engine of the small model in bfloat16."""
    return ready(bfloat16(tiny), "cuda")


@pytest.mark.parametrize("frames", [1, 3])
def test_the_small_model_is_as_close_to_fp32_as_plain_bfloat16(tiny, small_engine, frames):
    assert small_engine.kernels["engine"].startswith("fast")
    plain = ready(small_engine.model, "cuda", PLAIN)
    assert "engine" not in plain.kernels
    scenes = [photos(frames, seed=seed) for seed in range(6)]
    as_close_as_plain(ready(tiny, "cuda").run, plain.run, small_engine.run, scenes, least_db=30)


@pytest.mark.parametrize(("name", "settings"), FORMATS)
def test_the_small_model_in_every_format_is_as_close_as_the_plain_one(tiny, name, settings):
    model = bfloat16(tiny, name, settings)
    engine, scenes = ready(model, "cuda"), [photos(3, seed=seed) for seed in range(12)]
    assert engine.kernels["engine"].startswith("fast") and "reference" not in engine.kernels[name]
    # Activations in float8 leave 23 dB of the poses, measured on a CPU.
    fp32, plain = ready(dequantized(model), "cuda"), ready(model, "cuda", PLAIN)
    # Its points, through expm1, have 22 to 27 dB after one rounding or another (eight draws on a CPU).
    within_db = 6 if name in ("fp8", "w4a8") else 3
    as_close_as_plain(fp32.run, plain.run, engine.run, scenes, least_db=15, within_db=within_db)


@pytest.mark.parametrize(("name", "settings"), [(None, None), *FORMATS[2:]])
def test_the_large_model_is_as_close_to_fp32_as_the_plain_one(large, name, settings):
    model = bfloat16(large, name, settings)
    fp32 = ready(dequantized(model) if name else large, "cuda")
    scenes = [photos(3, LARGE, seed) for seed in range(2)]
    least_db = 15 if name else 30
    as_close_as_plain(
        fp32.run, ready(model, "cuda", PLAIN).run, ready(model, "cuda").run, scenes, least_db=least_db
    )  # fmt: skip


def test_float8_attention_stays_close_and_is_named(large):
    model, images = bfloat16(large), photos(2, LARGE)
    engine = ready(model, "cuda", RunSettings(attention="float8", attention_tokens=1000))
    assert "float8 from 1000 tokens" in engine.kernels["attention"]
    reference = run(ready(large, "cuda").run, images)
    exact, got = run(ready(model, "cuda").run, images), run(engine.run, images)
    assert shapes(got) == shapes(exact)
    # Attention in e4m3 keeps 25 dB of each layer's answer, which LayerScale adds to a stream at a third.
    found = sqnr_db([reference], [got])
    assert all(level >= 15 for level in found.values()), found
    assert not torch.equal(got["depth"], exact["depth"])


def eager(engine, images):
    """What the pass gives without a graph."""
    with torch.inference_mode():
        return engine.forward.run(images)


def same(one, other):
    """Equal up to the kernels that libraries may choose otherwise under a graph; other photos are below 20 dB."""
    found = sqnr_db([one], [other])
    return all(level >= 40 for level in found.values())


def test_a_graph_gives_for_new_photos_what_the_pass_gives(small_engine):
    first, second = photos(2, seed=1), photos(2, seed=2)
    assert not same(eager(small_engine, first), eager(small_engine, second))
    run(small_engine.run, first)
    graph_before = small_engine.forward.captured
    for images in (second, first, second):
        got = run(small_engine.run, images)
        assert same(eager(small_engine, images), got)
        assert torch.equal(got["images"], images[None])
    assert small_engine.forward.captured is graph_before


def test_outputs_are_not_overwritten_by_a_later_call(small_engine):
    first = run(small_engine.run, photos(2, seed=1))
    kept = copy.deepcopy(first)
    second = run(small_engine.run, photos(2, seed=2))
    torch.cuda.synchronize()
    for name, value in first.items():
        pairs = zip(value, kept[name], second[name], strict=True) if isinstance(value, list) else None
        for one, before, after in pairs or [(value, kept[name], second[name])]:
            assert torch.equal(one, before)
            assert one.data_ptr() != after.data_ptr()
    assert not torch.equal(first["depth"], second["depth"])


def test_shapes_may_change_from_call_to_call_and_back(small_engine):
    several = [photos(2), photos(3, (112, 56)), photos(1, (56, 112)), photos(2, seed=3)]
    expected = [eager(small_engine, images) for images in several]
    for number in (0, 1, 0, 2, 1, 3):
        got = run(small_engine.run, several[number])
        assert shapes(got) == shapes(expected[number])
        assert same(expected[number], got)


def test_many_photos_run_without_a_graph(small_engine, monkeypatch):
    images = photos(2)
    expected = run(small_engine.run, images)
    assert small_engine.forward.captured is not None
    monkeypatch.setattr(graph, "MOST_TOKENS", 2 * 64 - 1)
    assert same(expected, run(small_engine.run, images))
    assert small_engine.forward.captured is None
    monkeypatch.setattr(graph, "MOST_TOKENS", 2 * 64)
    assert same(expected, run(small_engine.run, images))
    assert small_engine.forward.captured is not None


def test_photos_that_cannot_be_run_leave_the_engine_whole(small_engine):
    expected = run(small_engine.run, photos(2))
    for bad, words in (
        (torch.rand(2, 3, 100, 112), "multiples of 14"),
        (torch.zeros(2, 3, 98, 112, dtype=torch.uint8), "have dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            run(small_engine.run, bad.cuda())
    assert same(expected, run(small_engine.run, photos(2)))


def test_a_batch_of_scenes_goes_to_the_plain_model(small_engine):
    scenes = torch.stack([photos(2, seed=1), photos(2, seed=2)])
    got = run(small_engine.run, scenes)
    assert got["depth"].shape == (2, 2, *SMALL, 1)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize(("name", "settings"), [(None, None), *FORMATS])
def test_the_pass_never_synchronises(tiny, name, settings):
    forward, images = fast.FastForward(bfloat16(tiny, name, settings), torch.device("cuda")), photos(2)
    run(forward, images)
    try:
        torch.cuda.set_sync_debug_mode("error")
        run(forward, images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def photos_with_a_hole():
    images = photos(2)
    images[1, :, 50:60, 50:60] = float("nan")
    return images


@pytest.mark.parametrize(("name", "settings"), [(None, None), *FORMATS])
def test_a_photo_that_is_not_finite_never_gives_cameras(tiny, name, settings):
    """A maximum passes over NaN, so a row's scale could be finite, and its garbage would look like an answer."""
    got = run(ready(bfloat16(tiny, name, settings), "cuda").run, photos_with_a_hole())
    assert not got["pose_enc"].isfinite().any()


def test_a_photo_that_is_not_finite_never_gives_maps(small_engine):
    got = run(small_engine.run, photos_with_a_hole())
    assert not got["depth"].isfinite().any()
    assert not got["world_points"].isfinite().any()


def test_what_the_kernels_cannot_run_is_run_plainly_with_its_reason(tiny):
    config = dataclasses.replace(tiny.config, depth_head=None, point_head=None, camera_head=None)
    sections = dataclasses.replace(config.aggregator, num_heads=8)
    odd = dataclasses.replace(config, embed_dim=192, aggregator=sections, patch_embed=config.patch_embed)
    model = VGGT(odd).cuda().bfloat16().requires_grad_(False)
    engine = ready(model, "cuda")
    assert engine.kernels["engine"] == "plain: 8 heads of 24 are not powers of two"
    assert engine.forward is None
    assert run(engine.run, photos(1)).keys() == {"images"}
    with pytest.raises(UnsupportedError, match="float8 attention is not supported here: 8 heads of 24"):
        ready(model, "cuda", RunSettings(attention="float8"))
    assert "engine" not in ready(tiny, "cuda").kernels
