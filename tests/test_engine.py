"""The engine: where a checkpoint runs and with which kernels, decided by rules that can be read off."""

import pytest
import torch

from vggt_quant import checkpoint, formats
from vggt_quant.engine import UnsupportedError, open_checkpoint, ready, run_device
from vggt_quant.inputs import prepare_model
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.packing import make_checkpoint
from vggt_quant.variants import load_variants

VARIANTS = load_variants()
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


@pytest.mark.parametrize("name", VARIANTS)
def test_an_engine_names_its_kernels_and_gives_the_models_answer(paths, name):
    engine, model = open_checkpoint(paths[name], "cpu"), checkpoint.load_packed(paths[name])
    used = {layer.format for layer in formats.packed_layers(model).values()}
    assert set(engine.kernels) == used | {"dense"}
    assert engine.compute_dtype == VARIANTS[name].dtype
    assert engine.kernels["dense"] == f"torch {VARIANTS[name].dtype}"
    outputs = engine.run(IMAGES)
    with torch.inference_mode():
        assert torch.equal(outputs["depth"], model(IMAGES)["depth"])
    assert outputs["depth"].is_inference()


def test_float32_is_never_tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    engine = ready(load_pretrained(resolve("nano-random")), "cpu")
    assert not torch.backends.cuda.matmul.allow_tf32
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32
    engine.run(IMAGES)
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32) == before
