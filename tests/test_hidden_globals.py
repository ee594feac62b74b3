"""Who uses the package as a library keeps his process and his modules as they were."""

import copy
import os

import pytest
import torch
import torch._inductor.config  # PyTorch's compiler sets a variable of its own when it is imported

import vggt_quant
from vggt_quant.inference.engine import compiled, ready
from vggt_quant.inference.fast import FastForward
from vggt_quant.inference.fast.dense_head import lay_out
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.variants import RunSettings

IMAGES = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def process():
    """What belongs to the whole process."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "compiler": copy.deepcopy(torch._dynamo.config.get_config_copy()),
        "switches": (cuda.allow_tf32, cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()),
        "random": torch.get_rng_state().tolist(),
    }


def modules(model):
    """What belongs to the caller's model, down to how its memory lies."""
    tensors = {
        name: (id(tensor), tensor.dtype, tensor.stride(), tensor.data_ptr(), tensor._version)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    owns = {name: sorted(vars(module)) for name, module in model.named_modules()}
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return tensors, owns, hooks, {name: type(module) for name, module in model.named_modules()}


@pytest.fixture
def model():
    return load_pretrained(resolve("nano-random")).bfloat16()


def run_engine(model):
    ready(model, "cpu").run(IMAGES)


def run_in_tf32(model):
    ready(model, "cpu", RunSettings(engine="plain", autocast="bfloat16")).run(IMAGES)


def run_fast(model):
    with torch.inference_mode():
        FastForward(model, torch.device("cpu"))(IMAGES)


def run_compiled(model):
    with torch.inference_mode():
        compiled(model, "eager")(IMAGES)
    torch._dynamo.reset()


def save(model):
    vggt_quant.save(model, "saved.safetensors")
    vggt_quant.load("saved.safetensors", device="auto")(IMAGES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", [run_engine, run_in_tf32, run_fast, run_compiled, save])
def test_a_model_of_the_callers_and_his_process_stay_as_they_were(model, use, tmp_path, monkeypatch):
    if use is run_fast and torch.cuda.is_available():
        pytest.skip("the kernels are compiled on this machine, for the GPU only")
    monkeypatch.chdir(tmp_path)
    before = process(), modules(model)
    use(model)
    after = process(), modules(model)
    for part in before[0]:
        assert before[0][part] == after[0][part], part
    assert before[1] == after[1]


def test_packing_a_model_changes_nothing_but_the_model():
    before = process()
    model = vggt_quant.quantize_model(vggt_quant.load("nano-random"), "int4_group128")
    model(IMAGES)
    after = process()
    assert all(before[part] == after[part] for part in before)


def test_a_dense_heads_weights_are_copied_only_where_nobody_has_laid_them_out(model):
    head, forward = model.depth_head, FastForward(model, torch.device("cpu")).dense_heads["depth"]
    convolution = head.scratch.layer1_rn
    assert forward.weights[convolution].data_ptr() != convolution.weight.data_ptr()
    expected = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    lay_out(head)
    laid_out = FastForward(model, torch.device("cpu")).dense_heads["depth"]
    assert laid_out.weights[convolution].data_ptr() == convolution.weight.data_ptr()
    assert all(torch.equal(expected[name], tensor) for name, tensor in head.state_dict().items())
