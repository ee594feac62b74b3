"""The nano model as files, for the tests of finding and loading weights."""

import json

import torch
from safetensors.torch import save_file

from vggt_quant.model.config import NAMED

CONFIG = json.dumps(NAMED["nano"].to_dict()).encode()


def write_nano(folder, content):
    """Put config.json and model.safetensors with these bytes into a new folder."""
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def write_shards(folder, state):
    """Replace the folder's single weight file by two shards and their index."""
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in part}, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def same(first, second):
    """Whether two state dicts agree in names, order aside, and in every bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
