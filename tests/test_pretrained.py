"""Weights on disk: found by name, identified, and loaded whole."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nano_model import CONFIG, same, write_nano, write_shards
from safetensors.torch import save_file

from vggt_quant.model.config import NAMED
from vggt_quant.model.weights.pretrained import WeightsError, load_pretrained, load_state, resolve, weights_sha256


@pytest.fixture
def folder(tmp_path, content):
    """A local folder that holds the nano model."""
    return write_nano(tmp_path / "nano", content)


def test_random_weights_are_found_by_the_name_of_a_configuration():
    source = resolve("small-random:7")
    assert (source.kind, source.config, source.paths, source.random_seed) == ("random", NAMED["small"], (), 7)
    assert source.label == "random weights (seed 7)"
    assert {resolve(f"{name}-random").random_seed for name in NAMED} == {0}


@pytest.mark.parametrize("name", ["vggt", "random", "huge-random", "small-random:x", "a b", ""])
def test_an_unknown_name_is_answered_with_what_is_possible(name):
    with pytest.raises(ValueError, match=r"facebook/VGGT-1B.*\.safetensors.*small-random.*small-random:7"):
        resolve(name)


@pytest.mark.parametrize("name", ["./absent", "absent.pt", "a/b/c", "weights/absent.safetensors", "~/absent"])
def test_a_missing_path_is_called_missing_and_never_asked_of_the_hub(name):
    with pytest.raises(WeightsError, match=f"no file or folder '{name}'"):
        resolve(name)


def test_a_folder_and_its_file_are_the_same_model(folder, state):
    for path, kind in ((folder, "folder"), (folder / "model.safetensors", "file")):
        source = resolve(path)
        assert (source.kind, source.config, source.name) == (kind, NAMED["nano"], str(path))
        assert source.label == str(path)
        assert same(load_pretrained(source).state_dict(), state)


def test_a_loaded_model_is_ready_for_inference(folder):
    model = load_pretrained(resolve(folder))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_changing_a_loaded_model_never_touches_its_file(folder, content):
    model = load_pretrained(resolve(folder))
    for parameter in model.parameters():
        parameter.data.zero_()
    assert (folder / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_widened_to_float32(folder, state, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, folder / "model.safetensors")
    loaded = load_pretrained(resolve(folder)).state_dict()
    assert same(loaded, {name: tensor.to(dtype).float() for name, tensor in state.items()})


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "weights.bin"])
def test_pickled_state_dicts_load_bare_or_wrapped(tmp_path, state, wrapper, name):
    (tmp_path / "config.json").write_bytes(CONFIG)
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / name)
    assert same(load_pretrained(resolve(tmp_path / name)).state_dict(), state)


def test_shards_load_as_one_model(folder, state):
    write_shards(folder, state)
    source = resolve(folder)
    assert [path.name for path in source.paths] == ["model-1.safetensors", "model-2.safetensors"]
    assert same(load_pretrained(source).state_dict(), state)


def test_a_model_without_a_head_loads_when_its_config_says_so(tmp_path, state):
    config = replace(NAMED["nano"], track_head=None)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("track_head.")}
    save_file(kept, tmp_path / "model.safetensors")
    assert same(load_pretrained(resolve(tmp_path)).state_dict(), kept)


MEMORY_SCRIPT = """
import pathlib, re, sys, torch
from vggt_quant.model.weights.pretrained import load_pretrained, resolve

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

def used(name):
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = status("VmRSS")
    model = load_pretrained(resolve(name))
    sum(parameter.sum().item() for parameter in model.parameters())  # reads every page
    return status("VmHWM") - before

load_pretrained(resolve("nano-random"))
print(*map(used, sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's memory accounts")
def test_loading_needs_the_memory_of_one_copy(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(NAMED["small"].to_dict()))
    small = load_state(resolve("small-random"))
    save_file(small, tmp_path / "model.safetensors")
    torch.save(small, tmp_path / "model.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    names = [str(tmp_path / "model.safetensors"), str(tmp_path / "model.pt"), "small-random"]
    command = [sys.executable, "-c", MEMORY_SCRIPT, *names]
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    size = sum(tensor.nbytes for tensor in small.values())
    assert size > 40e6
    for name, used in zip(names, map(int, output.split()), strict=True):
        # One copy and 16 MB: modules, names, and what an allocator keeps; a second copy would be far more.
        assert used < size + 16e6, name


def test_a_file_is_identified_by_its_bytes(folder, content):
    digest = hashlib.sha256(content).hexdigest()
    assert weights_sha256(resolve(folder)) == digest
    moved = folder.rename(folder.with_name("moved"))
    assert weights_sha256(resolve(moved / "model.safetensors")) == digest
    (moved / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_sha256(resolve(moved)) != digest


def test_every_shard_counts_in_the_identity(folder, state):
    write_shards(folder, state)
    first = weights_sha256(resolve(folder))
    state = dict(state)
    state["camera_head.token_norm.bias"] = state["camera_head.token_norm.bias"] + 1
    (folder / "model.safetensors").touch()
    write_shards(folder, state)
    assert weights_sha256(resolve(folder)) != first


def test_a_file_that_vanished_has_no_identity(folder):
    source = resolve(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors: No such file"):
        weights_sha256(source)


def test_random_weights_are_identified_by_sizes_and_seed():
    names = ["nano-random", "nano-random:1", "small-random", "small-random:1", "vggt-1b-random"]
    assert len({weights_sha256(resolve(name)) for name in names}) == len(names)
    assert weights_sha256(resolve("nano-random:0")) == weights_sha256(resolve("nano-random"))
