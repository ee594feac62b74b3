"""A checkpoint is run like the variant that it was made for, whoever made it and whoever opens it."""

import copy
import json

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import vggt_quant
from vggt_quant.cli import main as cli
from vggt_quant.inference import loaded
from vggt_quant.inference.engine import UnsupportedError
from vggt_quant.inference.engine import ready as really_ready
from vggt_quant.quantization.checkpoint import read_manifest
from vggt_quant.runtime.tensor_file import read_tensors
from vggt_quant.variants import DEFAULT, RunSettings, find_variant

IMAGES = torch.rand(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
FLOAT8 = RunSettings(attention="float8")


def variant_of(path):
    return read_manifest(path)["variant"]


def nano(variant, **settings):
    return vggt_quant.quantize_model(vggt_quant.load("nano-random"), variant, **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "mine.safetensors"
    vggt_quant.save(nano("fp8_attention8"), path)
    return path


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Run a step on the CPU and give its result; `plain.yaml` has a variant that differs from fp32 in its run only."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "photos" / "a.png")
    entries = {"plain": {"method": "cast", "dtype": "float32", "run": {"engine": "plain"}}}
    entries["fp32"] = {"method": "cast", "dtype": "float32"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(entries))

    def step(*words):
        assert cli.main([*map(str, words), "--device", "cpu", "--result", "r.json"]) == 0
        return json.loads((tmp_path / "r.json").read_text())

    return step


QUANTIZE = ("quantize", "--model", "nano-random", "--variants-file", "plain.yaml")


@pytest.mark.parametrize("command", [["speed"], ["accuracy", "--model", "nano-random"]])
def test_a_file_is_measured_as_its_variant_is_run_and_a_named_variant_comes_first(measured, command):
    measured(*QUANTIZE, "--variant", "plain", "--output", "z.safetensors")
    found = measured(*command, "--packed", "z.safetensors", "--images", "photos")
    assert (found["variant"], found["run"]["engine"]) == ("plain", "plain")
    words = [*command, "--packed", "z.safetensors", "--images", "photos", "--variants-file", "plain.yaml"]
    found = measured(*words, "--variant", "fp32")
    assert (found["variant"], found["run"]["engine"]) == ("fp32", "fast")


def test_the_published_baseline_is_not_measured_by_the_fast_engine(measured):
    measured("quantize", "--model", "nano-random", "--variant", "bf16_autocast", "--output", "z.safetensors")
    for command in (["speed"], ["accuracy", "--model", "nano-random"]):
        found = measured(*command, "--packed", "z.safetensors", "--images", "photos")
        assert found["error"]["message"] == "bfloat16 autocast runs on cuda only, not on cpu."


def test_variants_that_share_a_file_in_the_cache_get_copies_and_results_of_their_own(measured):
    first = measured(*QUANTIZE, "--variant", "fp32", "--cache", "cache")
    second = measured(*QUANTIZE, "--variant", "plain", "--cache", "cache", "--output", "q.safetensors")
    assert second["cached"] and variant_of(first["checkpoint"])["name"] == "fp32"
    assert variant_of("q.safetensors")["name"] == "plain"
    assert variant_of("q.safetensors")["run"]["engine"] == "plain"
    one, other = read_tensors(first["checkpoint"]), read_tensors("q.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    third = measured(*QUANTIZE, "--variant", "plain", "--cache", "cache")
    assert third["checkpoint"] == first["checkpoint"] and third["key"] == second["key"] == first["key"]
    found = measured("speed", "--packed", "r.json", "--images", "photos", "--variants-file", "plain.yaml")
    assert (found["variant"], found["run"]["engine"]) == ("plain", "plain")


def test_what_python_saves_is_run_like_its_variant(saved):
    assert variant_of(saved)["name"] == "fp8_attention8" and variant_of(saved)["run"]["attention"] == "float8"
    model = vggt_quant.load(saved)
    assert model.settings == nano("fp8_attention8").settings == FLOAT8
    assert copy.deepcopy(model).settings == FLOAT8
    model(IMAGES)
    assert model.ran == "plain: the model is on cpu, and float8 attention runs on cuda only"


def test_a_loaded_model_is_saved_as_it_was(saved, tmp_path):
    vggt_quant.save(vggt_quant.load(saved), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_the_caller_says_how_a_model_is_run(saved):
    assert vggt_quant.load(saved, run="bf16").settings == DEFAULT
    assert vggt_quant.load("nano-random").settings == DEFAULT
    for run in ("fp8_attention8", find_variant("fp8_attention8"), FLOAT8):
        assert vggt_quant.load("nano-random", run=run).settings == FLOAT8
    with pytest.raises(ValueError, match=r"There is no variant 'fp8_atention8' \(did you mean 'fp8_attention8'\?\)"):
        vggt_quant.load(saved, run="fp8_atention8")
    with pytest.raises(ValueError, match=r"run is \{'engine': 'plain'\}, a dict; give a variant's name such as"):
        vggt_quant.load(saved, run={"engine": "plain"})


def test_a_file_without_run_settings_is_run_by_the_default(tmp_path):
    model = nano("fp8_attention8")
    about = {key: value for key, value in model._made_by.items() if key != "run"}
    for variant in (about, None):
        vggt_quant.save(model, tmp_path / "old.safetensors", about={"variant": variant})
        assert vggt_quant.load(tmp_path / "old.safetensors").settings == DEFAULT


def test_run_settings_of_another_version_are_refused_by_name_and_can_be_replaced(tmp_path):
    path, model = tmp_path / "new.safetensors", nano("bf16")
    vggt_quant.save(model, path, about={"variant": {**model._made_by, "run": {"attention": "flaot8"}}})
    with pytest.raises(ValueError, match=r"new.safetensors: variant: run: .*did you mean 'float8'.*run='bf16'"):
        vggt_quant.load(path)
    assert vggt_quant.load(path, run="bf16").settings == DEFAULT


def test_what_is_not_the_variants_model_has_no_variant():
    twice = vggt_quant.quantize_model(nano("bf16"), "int8_symmetric")
    others = nano("fp8_attention8", dtype="keep"), twice, nano("int8_symmetric", dtype="float16")
    linear = vggt_quant.quantize_model(nn.Sequential(nn.Linear(64, 64)), "int8_symmetric")
    assert [model._made_by for model in (*others, linear)] == [None] * 4
    assert nano("int8_symmetric", dtype="bfloat16")._made_by["name"] == "int8_symmetric"


def test_a_dtype_is_taken_by_name_and_no_other(saved):
    assert nano("int8_symmetric", dtype="float16").aggregator.camera_token.dtype == torch.float16
    for dtype, words in (("bflot16", r"'bflot16' \(did you mean 'bfloat16'\?\)"), (torch.int8, "torch.int8"), (7, "7")):
        with pytest.raises(ValueError, match=rf"dtype is {words}; choose one of 'float32', .*'keep', or leave it out"):
            nano("int8_symmetric", dtype=dtype)


def test_a_machine_that_cannot_run_a_files_settings_says_so_and_runs_plainly(saved, monkeypatch):
    def ready(model, device, run, *, owns_weights):
        if run.attention != "bfloat16":
            raise UnsupportedError("float8 attention is not supported here: the GPU is too old.")
        return really_ready(model, device, run, owns_weights=owns_weights)

    monkeypatch.setattr(loaded, "ready", ready)
    monkeypatch.setattr(loaded, "no_engine_on", lambda device: None)
    model = vggt_quant.load(saved)
    for _ in range(2):
        assert model(IMAGES)["depth"].isfinite().all()
        assert model.ran == "plain: float8 attention is not supported here: the GPU is too old"
    with pytest.raises(UnsupportedError, match="too old"):
        vggt_quant.load(saved, run="fp8_attention8")(IMAGES)
