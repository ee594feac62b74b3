"""What `load` returns: the engine that was timed, inside a module that stays VGGT's.

There is no GPU here, so a stand-in is the engine: it answers with a copy of the weights that it was prepared for, the
most that an engine could derive from them. test_python_api_gpu.py holds the real one to the report's figures.
"""

import copy
import gc
import pickle
import threading
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

import vggt_quant
from vggt_quant.inference import loaded
from vggt_quant.inference.engine import Engine
from vggt_quant.inference.loaded import LoadedVGGT
from vggt_quant.model import VGGT
from vggt_quant.quantization.checkpoint import load_packed

IMAGES = torch.rand(2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
POINTS = torch.tensor([[4.0, 5.0], [20.0, 10.0]])


@pytest.fixture
def model():
    return vggt_quant.load("nano-random")


@pytest.fixture
def prepared(monkeypatch):
    """The engines that were made; with it, every model on the CPU has one."""
    made = []

    def ready(model, device, run, *, owns_weights):
        frozen = copy.deepcopy(model)
        made.append(frozen)
        kernels = {"engine": "fast, a copy", "dense": "copied"}
        dtype = str(model.aggregator.camera_token.dtype).removeprefix("torch.")
        return Engine(
            model=model, device=torch.device(device), kernels=kernels, compute_dtype=dtype, settings=run, forward=frozen
        )

    monkeypatch.setattr(loaded, "ready", ready)
    monkeypatch.setattr(loaded, "no_engine_on", lambda device: None)
    return made


def plainly(model, images=IMAGES, query_points=None):
    """The answer of VGGT's own forward."""
    with torch.no_grad():
        return VGGT.forward(model, images, query_points)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        values, others = (x if isinstance(x, list) else [x] for x in (value, other[name]))
        assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True)), name
    return True


def test_a_model_on_the_cpu_runs_its_plain_modules_and_says_why(model):
    assert isinstance(model, VGGT) and not model.training
    assert model.ran == ""
    assert same(model(IMAGES), plainly(model))
    assert model.ran == "plain: the model is on cpu"


def test_the_engine_answers_once_prepared_and_a_batch_scene_by_scene(model, prepared):
    assert same(model(IMAGES), plainly(model))
    assert model.ran == "fast, a copy" and model.kernels == {"engine": "fast, a copy", "dense": "copied"}
    batch = torch.stack([IMAGES, IMAGES.flip(0)])
    expected = plainly(model, batch)
    got = model(batch)
    assert got["pose_enc"].shape == expected["pose_enc"].shape and len(got["pose_enc_list"]) == 4
    for name, value in expected.items():
        assert torch.allclose(torch.cat([*got[name]]), torch.cat([*value]), atol=1e-5), name
    assert same(model(IMAGES[:1]), plainly(model, IMAGES[:1]))
    assert len(prepared) == 1


def test_query_points_are_tracked_by_the_plain_modules(model, prepared):
    assert same(model(IMAGES, POINTS), plainly(model, IMAGES, POINTS))
    assert model.ran == "plain: query points were given" and not prepared


def test_hooks_on_a_module_inside_are_called(model, prepared):
    model(IMAGES)
    seen = []
    handle = model.aggregator.frame_blocks[0].register_forward_hook(lambda *_: seen.append(1))
    model(IMAGES)
    assert seen and model.ran == "plain: a module inside has hooks or an overridden forward"
    handle.remove()
    assert same(model(IMAGES), plainly(model)) and model.ran == "fast, a copy"
    model.register_forward_hook(lambda *_: seen.append(2))
    model(IMAGES)
    assert seen[-1] == 2 and model.ran == "fast, a copy"


def test_what_counts_operations_sees_them(model, prepared):
    model(IMAGES)
    with FlopCounterMode(display=False) as counter:
        model(IMAGES)
    assert counter.get_total_flops() > 0 and model.ran == "plain: a counter, profiler or hook watches every operation"
    seen = []
    handle = register_module_forward_hook(lambda *_: seen.append(1))
    model(IMAGES)
    handle.remove()
    assert len(seen) > 10
    model(IMAGES)
    assert model.ran == "fast, a copy"


def test_a_forward_that_was_put_in_place_of_a_modules_own_is_called(model, prepared):
    model(IMAGES)
    block, seen = model.aggregator.frame_blocks[0], []
    forward = block.forward
    block.forward = lambda *args: seen.append(1) or forward(*args)
    model(IMAGES)
    assert seen and model.ran == "plain: a module inside has hooks or an overridden forward"


def test_gradients_reach_images_and_weights(model, prepared):
    model(IMAGES)
    images = IMAGES.clone().requires_grad_()
    model(images)["depth"].sum().backward()
    assert images.grad.abs().sum() > 0 and model.ran == "plain: the images want a gradient"
    weight = model.depth_head.norm.weight.requires_grad_()
    model(IMAGES)["depth"].sum().backward()
    assert weight.grad.abs().sum() > 0 and model.ran == "plain: a parameter wants a gradient"
    with torch.no_grad():
        assert same(model(IMAGES), plainly(model)) and model.ran == "fast, a copy"


def other_weights(model):
    return {name: value * 1.01 for name, value in model.state_dict().items()}


CHANGES = {
    "an edit in place": lambda model: model.aggregator.frame_blocks[0].mlp.fc1.weight.mul_(1.01),
    "an edit under no_grad": lambda model: model.depth_head.norm.bias.add_(0.5),
    "load_state_dict": lambda model: model.load_state_dict(other_weights(model)),
    "load_state_dict by assignment": lambda model: model.load_state_dict(other_weights(model), assign=True),
    "the same inside": lambda model: model.depth_head.load_state_dict(other_weights(model.depth_head)),
    "another type": lambda model: model.to(torch.bfloat16),
    "another type inside": lambda model: model.depth_head.to(torch.float64).float(),
    "data of its own": lambda model: setattr(model.depth_head.norm.weight, "data", model.depth_head.norm.weight * 2),
    "a parameter": lambda model: setattr(
        model.depth_head.norm, "weight", torch.nn.Parameter(2 * model.depth_head.norm.weight, requires_grad=False)
    ),
    "packed layers": lambda model: vggt_quant.quantize_model(model, "int8_symmetric"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_change_the_answer(model, prepared, change):
    before = model(IMAGES)
    with torch.no_grad():
        CHANGES[change](model)
    assert same(model(IMAGES), plainly(model))
    if change != "another type inside":  # to float64 and back is no change
        assert not torch.equal(model(IMAGES)["depth"], before["depth"])
    assert model.ran == "fast, a copy"


def test_a_layer_that_was_replaced_is_run(model, prepared):
    before = model(IMAGES)
    block = model.aggregator.global_blocks[0]
    block.mlp = copy.deepcopy(model.aggregator.frame_blocks[0].mlp)
    assert same(model(IMAGES), plainly(model))
    assert not torch.equal(model(IMAGES)["depth"], before["depth"])


def test_weights_that_stay_are_prepared_for_once(model, prepared):
    for images in (IMAGES, IMAGES[:1], IMAGES):
        model(images)
    assert len(prepared) == 1


def test_the_engine_is_let_go_where_the_weights_are_moved_loaded_or_packed(model, prepared):
    for change in (
        lambda: model.to(torch.float32),
        lambda: model.load_state_dict(model.state_dict()),
        lambda: vggt_quant.quantize_model(model, "int8_symmetric"),
    ):
        model(IMAGES)
        gone = weakref.ref(prepared.pop())
        change()
        gc.collect()
        assert gone() is None


def test_a_model_is_freed_at_once_when_nobody_holds_it(prepared):
    model = vggt_quant.load("nano-random")
    model(IMAGES)
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_outputs_are_plain_tensors_also_in_inference_mode(model, prepared):
    with torch.inference_mode():
        first = model(IMAGES)
    second = model(IMAGES)
    assert same(first, second) and not second["depth"].is_inference() and not first["depth"].is_inference()


def test_copies_and_pickles_run_by_themselves(model, prepared):
    model(IMAGES)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again) is LoadedVGGT and again.ran == ""
        assert same(again(IMAGES), model(IMAGES))
        with torch.no_grad():
            again.depth_head.norm.weight.mul_(2)
        assert not torch.equal(again(IMAGES)["depth"], model(IMAGES)["depth"])


def test_threads_get_their_own_answers(model, prepared):
    scenes = [torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    answers = [None] * len(scenes)

    def work(index):
        answers[index] = model(scenes[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(answer, plainly(model, scene)) for answer, scene in zip(answers, scenes, strict=True))


def test_the_readmes_lines_store_what_the_variant_stores(tmp_path, prepared):
    path, kept = tmp_path / "int4.safetensors", tmp_path / "kept.safetensors"
    model = vggt_quant.load("nano-random")
    assert vggt_quant.quantize_model(model, "int4_group128") is model
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    vggt_quant.save(model, path)
    vggt_quant.save(vggt_quant.quantize_model(vggt_quant.load("nano-random"), "int4_group128", dtype="keep"), kept)
    assert path.stat().st_size < 0.7 * kept.stat().st_size
    again = vggt_quant.load(path)
    assert same(again(IMAGES), model(IMAGES))  # float32 images
    assert again.state_dict().keys() == load_packed(path).state_dict().keys()


def test_auto_is_a_device_and_a_gpu_that_is_not_there_is_refused(tmp_path):
    place = "cuda" if torch.cuda.is_available() else "cpu"
    assert vggt_quant.load("nano-random", device="auto").aggregator.camera_token.device.type == place
    path = tmp_path / "saved.safetensors"
    vggt_quant.save(vggt_quant.load("nano-random"), path)
    for model in (load_packed(path, device="auto"), vggt_quant.load_into(vggt_quant.load(path), path, device="auto")):
        assert model.aggregator.camera_token.device.type == place
    if place == "cpu":
        with pytest.raises(ValueError, match='device is cuda, but PyTorch finds no GPU here; use "auto" or "cpu"'):
            vggt_quant.load("nano-random", device="cuda")


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_lines_run(readme, tmp_path, monkeypatch):
    code = (Path(__file__).parents[1] / readme).read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    for theirs, here in (("facebook/VGGT-1B", "nano-random"), ('device="cuda"', 'device="auto"')):
        assert theirs in code
        code = code.replace(theirs, here)
    (tmp_path / "my_photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / "my_photos" / name)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(code, found)
    size = found["model"].config.img_size
    assert found["outputs"]["images"].shape[:2] == (1, 2) and found["outputs"]["images"].shape[-1] == size


def test_images_of_another_size_than_the_models_are_warned_of_once():
    model = vggt_quant.load("nano-random")  # for 112 pixels
    with pytest.warns(
        UserWarning, match=r"is 182 pixels, but .* trained on 112.*load_images\(paths, model=model\)"
    ) as w:
        model(torch.zeros(1, 3, 14, 182))
    assert len(w) == 1 and w[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        model(torch.zeros(1, 3, 14, 182))
        for side in (84, 112, 168):
            vggt_quant.load("nano-random")(torch.zeros(1, 3, side, 14))
        with pytest.raises(UserWarning, match="is 70 pixels"):
            vggt_quant.load("nano-random")(torch.zeros(1, 3, 70, 14))


def test_names_that_do_not_exist_are_answered_with_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"There is no model 'tinny' \(did you mean 'tiny'\?\)"):
        vggt_quant.load("tinny")
    for device in ("gpu0", 1.5):
        with pytest.raises(ValueError, match=f'device is {device!r}, which PyTorch does not know; use "auto", "cpu"'):
            vggt_quant.load("nano-random", device=device)
    with pytest.raises(ValueError, match=r"model is 'tiny' and no loaded model; give model=load\('tiny'\) or size="):
        vggt_quant.load_images(tmp_path / "a.png", model="tiny")
    for folder in (tmp_path, str(tmp_path), [tmp_path]):
        with pytest.raises(
            ValueError, match=r" is a folder; give its photos: load_images\(find_images\('.*'\).paths\)"
        ):
            vggt_quant.load_images(folder)
