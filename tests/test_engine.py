"""The engine: where a checkpoint runs and with which kernels, decided by rules that can be read off."""

import sys

import pytest
import torch

from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import Engine, UnsupportedError, open_checkpoint, ready, run_device, unsupported
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, formats, methods
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.variants import RunSettings, load_variants

VARIANTS = {name: variant for name, variant in load_variants().items() if not variant.optional}
PACKS = {name: methods.config_of(variant).packs for name, variant in VARIANTS.items()}
ON_CPU = [name for name, packs in PACKS.items() if packs is None or "cpu" in formats.spec(packs).devices]
CUDA = torch.device("cuda")
IMAGES = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The checkpoint of every variant."""
    cache, nano = tmp_path_factory.mktemp("cache"), prepare_model("nano-random")
    return {name: make_checkpoint(nano, variant, cache, "cpu").checkpoint for name, variant in VARIANTS.items()}


def test_a_format_without_a_kernel_for_a_device_goes_to_the_cpu_or_is_refused(paths):
    on_cuda = {name: run_device(path, "cuda") for name, path in paths.items()}
    assert on_cuda.pop("pytorch_dynamic_int8") == "cpu"
    assert set(on_cuda.values()) == {"cuda"}
    with pytest.raises(UnsupportedError, match="pytorch_dynamic_int8 runs on cpu only, not on cuda"):
        open_checkpoint(paths["pytorch_dynamic_int8"], "cuda")


def test_float8_is_for_gpus_and_says_so(paths):
    with pytest.raises(UnsupportedError, match="fp8 runs on cuda only, not on cpu"):
        open_checkpoint(paths["fp8"], "cpu")


@pytest.mark.parametrize("name", ON_CPU)
def test_an_engine_names_its_kernels_and_gives_the_models_answer(paths, name):
    engine, model = open_checkpoint(paths[name], "cpu"), checkpoint.load_packed(paths[name])
    used = {layer.format for layer in packed_layers(model).values()}
    assert set(engine.kernels) == used | {"dense"}
    assert engine.compute_dtype == VARIANTS[name].dtype
    assert engine.kernels["dense"] == f"torch {VARIANTS[name].dtype}"
    outputs = engine.run(IMAGES)
    with torch.inference_mode():
        assert torch.equal(outputs["depth"], model(IMAGES)["depth"])
    assert outputs["depth"].is_inference()


class Watched:
    """A model that writes down what PyTorch's switches are while it runs."""

    def __init__(self):
        self.seen = None

    def __call__(self, images):
        self.seen = switches()


def switches():
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.enabled, cudnn.allow_tf32, torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("run", "dtype", "expected"),
    [
        (RunSettings(), "float32", (False, False, False, False)),  # never TF32, and without cuDNN
        (RunSettings(), "bfloat16", (False, True, False, False)),
        (RunSettings(engine="plain", tf32=True), "float32", (True, True, True, False)),
        (
            RunSettings(engine="plain", autocast="bfloat16"),
            "float32",
            (False, True, True, True),
        ),  # PyTorch's defaults
    ],
)
def test_a_run_sets_the_switches_that_its_settings_name_and_puts_them_back(run, dtype, expected):
    model = Watched()
    engine = Engine(model=model, device=torch.device("cpu"), kernels={}, compute_dtype=dtype, settings=run)
    torch.backends.cuda.matmul.allow_tf32 = not expected[0]
    before = switches()
    engine.run(IMAGES)
    assert model.seen == expected
    assert switches() == before
    torch.backends.cuda.matmul.allow_tf32 = False


def test_autocast_runs_the_transformer_in_bfloat16_and_the_heads_in_float32():
    model = load_pretrained(resolve("nano-random"))
    seen = {}
    for name in ("aggregator.frame_blocks.0.mlp.fc1", "depth_head.projects.0"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    engine = ready(model, "cpu", RunSettings(engine="plain", autocast="bfloat16"))
    assert engine.run(IMAGES)["depth"].dtype == torch.float32
    assert seen == {"aggregator.frame_blocks.0.mlp.fc1": torch.bfloat16, "depth_head.projects.0": torch.float32}
    assert engine.kernels["dense"] == "torch float32 under bfloat16 autocast"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RunSettings(engine="plain", tf32=True), "TF32 runs on cuda only, not on cpu"),
        (RunSettings(engine="plain", autocast="bfloat16"), "bfloat16 autocast runs on cuda only, not on cpu"),
    ],
)
def test_a_way_to_run_that_the_device_lacks_is_refused_with_its_reason(paths, run, words):
    with pytest.raises(UnsupportedError, match=words):
        open_checkpoint(paths["fp32"], "cpu", run)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "slow"}, "RunSettings.engine should be one of fast, plain, but is 'slow'"),
        (
            {"engine": "plain", "autocast": "float16"},
            "RunSettings.autocast should be bfloat16 or null, but is 'float16'",
        ),
        ({"engine": "plain", "tf32": 1}, "RunSettings.tf32 should be true or false, but is 1"),
        ({"attention": "int8"}, "There is no attention 'int8'; there are bfloat16, .*torch_sdpa"),
        ({"attention": "flaot8"}, r"There is no attention 'flaot8' \(did you mean 'float8'\?\); there are "),
        ({"attention_tokens": -1}, "RunSettings.attention_tokens should be a whole number from 0, but is -1"),
        ({"autocast": "bfloat16"}, "autocast goes with engine: plain only, not with fast"),
        ({"tf32": True}, "tf32 goes with engine: plain only"),
        ({"engine": "plain", "attention": "float8"}, "attention: float8 goes with engine: fast only"),
        ({"engine": "plain", "compile": 1}, "RunSettings.compile should be true or false, but is 1"),
        ({"compile": True}, "compile goes with engine: plain only"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        RunSettings(**settings)


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_a_device_that_is_neither_cpu_nor_cuda_is_refused_with_the_cure(paths, device):
    words = f"device is '{device}'; choose auto, cpu or cuda, and which GPU by CUDA_VISIBLE_DEVICES"
    with pytest.raises(ValueError, match=words):
        open_checkpoint(paths["bf16"], device)
    with pytest.raises(ValueError, match=words):
        ready(checkpoint.load_packed(paths["bf16"]), device)


def test_without_triton_a_gpu_runs_the_plain_modules_and_says_why(paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    model = checkpoint.load_packed(paths["bf16"])
    engine = ready(model, "cuda")
    assert engine.forward is None and engine.kernels["engine"] == "plain: Triton is not installed"
    with pytest.raises(UnsupportedError, match="float8 attention is not supported here: Triton is not installed"):
        ready(model, "cuda", RunSettings(attention="float8"))
    with pytest.raises(UnsupportedError, match="torch.compile needs Triton on a GPU, which is not installed"):
        ready(model, "cuda", RunSettings(engine="plain", compile=True))


@pytest.mark.parametrize("name", ["w8a16", "w4a16", "w8a8", "w4a8", "fp8"])
def test_our_formats_need_triton_on_a_gpu_and_say_so(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert unsupported(name, CUDA) is None
    monkeypatch.setitem(sys.modules, "triton", None)
    assert unsupported(name, CUDA) == f"{name} needs Triton on a GPU, which is not installed"
    assert unsupported(name, torch.device("cpu")) is None


@pytest.mark.parametrize("name", ["w8a8", "w4a8"])
def test_integers_are_not_for_gpus_that_triton_multiplies_none_on(name, monkeypatch):
    """Triton's compiler fails at the kernel for compute capability 7.5."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert f"{name} has no kernel for Tesla T4" in unsupported(name, CUDA)
