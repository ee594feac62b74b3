"""Seeded random weights: equal everywhere, and a model that runs sanely on its images."""

import copy
import hashlib

import pytest
import torch
from nano_model import same

from vggt_quant.model.weights.pretrained import load_pretrained, load_state, resolve
from vggt_quant.model.weights.random_weights import random_tensor


@pytest.fixture(scope="module")
def state():
    """The nano model's weights."""
    return load_state(resolve("nano-random"))


def test_random_weights_are_equal_bit_for_bit_on_every_machine():
    tensor = random_tensor("aggregator.frame_blocks.3.mlp.fc1.weight", torch.Size((400, 300)), seed=5)
    digest = hashlib.sha256(tensor.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "9525ec16aa13c3d7d795d9b280a8ce3a9726fed011efa1eee7bcdc31a73131b3"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(state):
    assert same(load_state(resolve("nano-random:0")), state)
    other = load_state(resolve("nano-random:1"))
    assert other.keys() == state.keys()
    assert not any(torch.equal(other[name], state[name]) for name in state)


def test_random_linear_weights_are_normal_with_the_variance_of_one_over_fan_in():
    values = random_tensor("blocks.0.attn.qkv.weight", torch.Size((4096, 256)), seed=0).double() * 16
    # A million values: standard errors are 0.001, 0.0007 and 0.005.
    assert abs(values.mean()) < 0.005
    assert abs(values.std() - 1) < 0.004
    assert abs(values.pow(4).mean() - 3) < 0.03
    assert 3.9 < values.abs().max() < 4.05


@pytest.fixture(scope="module", params=["nano-random:0", "nano-random:1", "small-random:0"])
def model(request):
    return load_pretrained(resolve(request.param))


def predict(model, seed, dtype=torch.float32):
    """Outputs for three smooth random photos, with query points."""
    side = model.config.img_size
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(images, size=(side, side), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        return model(images.to(dtype), query_points=torch.tensor([[20.0, 30.0], [60.0, 50.0]]))


def test_random_weights_give_sane_cameras_depths_and_points(model):
    outputs = predict(model, seed=0)
    assert all(value.isfinite().all() for value in outputs.values() if torch.is_tensor(value))
    depth, pose = outputs["depth"], outputs["pose_enc"]
    assert 0.3 < depth.median() < 3
    assert depth.max() < 100
    assert outputs["world_points"].abs().max() < 100
    assert pose[..., 3:7].norm(dim=-1).min() > 0.5
    assert (pose[..., 7:] > 0.4).all()
    assert (pose[..., 7:] < 1.7).all()


def test_random_weights_give_finite_outputs_in_bfloat16(model):
    outputs = predict(copy.deepcopy(model).to(torch.bfloat16), seed=0, dtype=torch.bfloat16)
    assert all(value.isfinite().all() for value in outputs.values() if torch.is_tensor(value))
    assert outputs["depth"].max() < 100


def test_random_weights_look_at_their_images(model):
    first, second = predict(model, seed=0), predict(model, seed=1)
    for key, smallest in (("depth", 0.05), ("world_points", 0.05), ("pose_enc", 0.005), ("depth_conf", 0.01)):
        change = (first[key] - second[key]).square().mean().sqrt() / first[key].square().mean().sqrt()
        assert change > smallest, f"{key} hardly depends on the photos"
        frames = first[key].unbind(dim=1)
        assert not torch.allclose(frames[1], frames[2], rtol=1e-3), f"{key} is the same for every frame"
