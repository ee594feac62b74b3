"""What the README's lines of Python do on a GPU is what the report's row says: bytes, memory, time and outputs."""

import copy
import gc
import threading

import pytest
import torch
from kernel_cases import COMPILED
from torch import nn

import vggt_quant
from vggt_quant.benchmark.paired import time_pairs
from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import open_checkpoint
from vggt_quant.model import VGGT
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results import decibels
from vggt_quant.runtime.tensor_file import read_tensors, tensor_bytes
from vggt_quant.variants import load_variants

pytestmark = COMPILED
VARIANTS = load_variants()
MODEL = "vggt-1b-random"
ROWS = ["int4_group128", "fp8", "bf16"]
SLACK = 16 * 2**20
"""Bytes by which two peaks may differ: what the allocator rounds up, and the copy of the images."""


def photos(frames, size=(350, 518), seed=0):
    return torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(seed)).cuda()


def db(one, other):
    """The lowest signal-to-noise ratio of an output; infinite where all are the same bit for bit."""
    names = [name for name, value in one.items() if isinstance(value, torch.Tensor) and name != "images"]
    assert {"depth", "world_points", "pose_enc"} <= set(names)
    return min(decibels.sqnr_db(one[name].float(), other[name].float()) for name in names)


def empty():
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # 32 MiB for every stream that it has ever worked on
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """Variant -> what the workflow's stage makes; one at a time, as each has up to 2.5 GB."""
    cache, model, made = tmp_path_factory.mktemp("cache"), prepare_model(MODEL), {}

    def make(name):
        if name not in made:
            made[name] = make_checkpoint(model, VARIANTS[name], cache, "cuda")
        return made[name]

    return make


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Variant -> the file of the README's first lines, and the model that was quantized in place."""
    folder, made = tmp_path_factory.mktemp("saved"), {}

    def make(name):
        if name not in made:
            model = vggt_quant.load(MODEL, device="cuda")
            vggt_quant.quantize_model(model, name)
            made[name] = folder / f"{name}.safetensors"
            vggt_quant.save(model, made[name])
            images = photos(2)
            assert db(vggt_quant.load(made[name], device="cuda")(images), model(images)) >= 50
            assert model.ran.startswith("fast")
        return made[name]

    return make


@pytest.mark.parametrize("name", ROWS)
def test_the_file_has_the_rows_bytes(name, row, saved):
    theirs, ours = row(name).checkpoint, saved(name)
    assert tensor_bytes(ours) == tensor_bytes(theirs)
    one, other = read_tensors(ours), read_tensors(theirs)
    assert all(torch.equal(one[key].view(torch.uint8), other[key].view(torch.uint8)) for key in one if one[key].ndim)


@pytest.mark.parametrize("name", ROWS)
def test_a_loaded_model_has_the_rows_memory_time_and_outputs(name, row, saved):
    images, checkpoint, file = photos(5), row(name).checkpoint, saved(name)
    empty()
    engine = open_checkpoint(checkpoint, "cuda", VARIANTS[name].run)
    expected = {key: value.cpu() for key, value in engine.run(images).items() if isinstance(value, torch.Tensor)}
    row_peak = torch.cuda.max_memory_allocated()
    del engine
    empty()
    model = vggt_quant.load(file, device="cuda")
    got = {key: value.cpu() for key, value in model(images).items() if isinstance(value, torch.Tensor)}
    assert torch.cuda.max_memory_allocated() <= row_peak + SLACK
    assert model.ran.startswith("fast, ")
    assert db(expected, got) >= 50
    engine = open_checkpoint(row(name).checkpoint, "cuda", VARIANTS[name].run)
    for number in (1, 5):
        few = images[:number]
        found = time_pairs(
            lambda few=few: engine.run(few), lambda few=few: model(few), synchronize=engine.synchronize, seconds=2
        )
        assert found.ratio <= 1.10, (number, found.ratio, found.first_ms_median, found.second_ms_median)


def tiny():
    model = vggt_quant.load("tiny", device="cuda")
    return vggt_quant.quantize_model(model, "bf16")


def fresh(model, images):
    """What an engine answers that was never prepared for other weights."""
    return copy.deepcopy(model)(images)


CHANGES = {
    "an edit in place": lambda model: model.depth_head.norm.bias.add_(0.5),
    "a convolution": lambda model: model.depth_head.scratch.layer1_rn.weight.mul_(1.5),
    "a loaded state": lambda model: model.load_state_dict({k: v * 1.01 for k, v in model.state_dict().items()}),
    "packed layers": lambda model: vggt_quant.quantize_model(model, "int8_symmetric"),
    "a module": lambda model: setattr(
        model.aggregator.global_blocks[0], "mlp", copy.deepcopy(model.aggregator.frame_blocks[0].mlp)
    ),
    "a move and back": lambda model: model.cpu().cuda(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_run(change):
    model, images = tiny(), photos(3, (112, 112))
    before = model(images)
    assert model.ran.startswith("fast")
    with torch.no_grad():
        CHANGES[change](model)
    torch.cuda.empty_cache()  # an engine that still worked on the old weights would now read what is not there
    after = model(images)
    assert model.ran.startswith("fast")
    assert db(fresh(model, images), after) >= 50
    assert change == "a move and back" or db(before, after) < 50


def test_batches_query_points_hooks_and_gradients_are_answered():
    model, images = tiny(), photos(4, (112, 112))
    batch = images.view(2, 2, 3, 112, 112)
    got = model(batch)
    assert model.ran.startswith("fast") and got["depth"].shape[:2] == (2, 2)
    assert all(db(model(scene), {k: v[i : i + 1] for k, v in got.items() if k != "pose_enc_list"}) >= 50
               for i, scene in enumerate(batch))  # fmt: skip
    points = torch.tensor([[10.0, 20.0], [25.0, 16.0]], device="cuda")
    tracked = vggt_quant.load("nano-random", device="cuda")
    assert tracked(photos(4, (28, 42)), points)["track"].shape == (1, 4, 2, 2)
    assert tracked.ran == "plain: query points were given"
    seen = []
    handle = model.aggregator.frame_blocks[0].register_forward_hook(lambda *_: seen.append(1))
    model(images)
    assert seen and model.ran == "plain: a module inside has hooks or an overridden forward"
    handle.remove()
    model.requires_grad_()
    model(images)["depth"].mean().backward()
    assert model.ran == "plain: a parameter wants a gradient"
    assert model.depth_head.norm.weight.grad.isfinite().all()
    with torch.no_grad():
        model(images)
    assert model.ran.startswith("fast")


def test_other_shapes_streams_and_threads_get_their_own_answers():
    model = tiny()
    scenes = [photos(frames, size, frames) for frames, size in ((1, (112, 112)), (3, (56, 112)), (2, (112, 84)))]
    expected = [{k: v.clone() for k, v in fresh(model, scene).items() if k != "pose_enc_list"} for scene in scenes]
    torch.cuda.synchronize()
    answers = {}

    def work(index):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                answers[index] = model(scenes[index])
        torch.cuda.synchronize()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in enumerate(expected):
        assert db(answer, answers[index]) >= 50


def test_images_may_lie_on_the_cpu_and_autocast_changes_nothing():
    model, images = tiny(), photos(2, (112, 112))
    expected = model(images)
    assert db(expected, model(images.cpu())) >= 50
    with torch.autocast("cuda", torch.bfloat16):
        assert db(expected, model(images)) >= 50
        assert model.ran.startswith("fast")


def test_a_model_that_is_moved_away_or_dropped_leaves_no_memory():
    empty()
    before = torch.cuda.memory_allocated()
    model = tiny()
    model(photos(2, (112, 112)))
    model.cpu()
    empty()
    assert torch.cuda.memory_allocated() <= before + 2**20
    model.cuda()(photos(2, (112, 112)))
    del model
    empty()
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_a_vggt_of_the_callers_stays_as_it_is():
    """`ready` and `quantize_model` on a plain VGGT: no layout, forward or type of it changes by running it."""
    from vggt_quant.inference.engine import ready

    model = vggt_quant.load("tiny", device="cuda").bfloat16()
    plain = VGGT.__new__(VGGT)
    nn.Module.__init__(plain)
    plain.config = model.config
    for name, child in model.named_children():
        setattr(plain, name, child)
    strides = {name: tensor.stride() for name, tensor in plain.state_dict().items()}
    ready(plain, "cuda").run(photos(2, (112, 112)))
    assert strides == {name: tensor.stride() for name, tensor in plain.state_dict().items()}
    assert not any("forward" in vars(module) for module in plain.modules())
