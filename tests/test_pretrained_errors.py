"""Weights that are missing, damaged or of another model: one sentence each, naming the file and the cure."""

import json
from pathlib import Path

import pytest
import torch
from nano_model import CONFIG, write_nano, write_shards
from safetensors.torch import save_file

from vggt_quant.model.weights.pretrained import WeightsError, load_pretrained, resolve


@pytest.fixture
def folder(tmp_path, content):
    """A local folder that holds the nano model."""
    return write_nano(tmp_path / "nano", content)


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    with pytest.raises(WeightsError, match="needs one of model.safetensors"):
        resolve(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"weights.gguf is no weight file; give a \.safetensors"):
        resolve(tmp_path / "weights.gguf")


@pytest.mark.parametrize("text", ["{", "[]", '{"aggregator": {"depht": 3}}', '{"embed_dim": 768}', '{"aggregator": 3}'])
def test_a_config_that_describes_no_vggt_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=str(folder / "config.json")):
        resolve(folder)


def test_a_missing_shard_is_named(folder, state):
    write_shards(folder, state)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-2\.safetensors is missing"):
        resolve(folder)


def test_a_tensor_in_two_shards_is_refused(folder, state):
    write_shards(folder, state)
    (folder / "model-2.safetensors").write_bytes((folder / "model-1.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="repeats tensors"):
        load_pretrained(resolve(folder))


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/x.safetensors", "model.pt"])
def test_an_index_cannot_point_outside_its_folder(folder, shard):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match="does not list"):
        resolve(folder)


def test_a_missing_head_that_the_config_promises_is_named_with_its_switch(folder, state):
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("track_head.")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks .* 'track_head\..*enable_track in the config.json"):
        load_pretrained(resolve(folder))


def test_every_kind_of_misfit_is_named(folder, state):
    name = "aggregator.patch_embed.norm.bias"
    misfits = {
        r"1 shapes differ, such as 'aggregator.patch_embed.norm.bias': \[7\], not \[128\]": {name: torch.zeros(7)},
        "1 others, such as 'encoder.extra'": {"encoder.extra": torch.zeros(3)},
        r"1 dtypes are unknown, .*norm.bias': torch.int8": {name: torch.zeros(128, dtype=torch.int8)},
        "others, such as .*VGGT-Omega": {"aggregator.other_register_token": torch.zeros(1, 2, 16, 8)},
    }
    for message, change in misfits.items():
        save_file(state | change, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=f"model.safetensors does not fit the model: .*{message}"):
            load_pretrained(resolve(folder))


def test_nano_weights_without_a_config_are_no_vggt_1b(folder):
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks .* of 1797 tensors.*config.json that belongs to them"):
        load_pretrained(resolve(folder))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_truncated_file_is_named(tmp_path, state, content, name, share):
    path = tmp_path / name
    (tmp_path / "config.json").write_bytes(CONFIG)
    if name.endswith(".pt"):
        torch.save(state, path)
        content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=f"{path} is truncated or no .*delete it"):
        load_pretrained(resolve(path))


class Sneaky:
    """A pickled object that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, state):
    torch.save({"model": state, "extra": Sneaky(tmp_path / "owned")}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights.pt holds more than tensors"):
        load_pretrained(resolve(tmp_path / "weights.pt"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("value", [3, [torch.zeros(2)], {"model": {"a": 1}}])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_pretrained(resolve(tmp_path / "weights.pt"))
