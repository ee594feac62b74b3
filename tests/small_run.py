"""A run on the nano model and two small photos, stage by stage, for the tests of the stages."""

import dataclasses
import json

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from vggt_quant.inputs import prepare_images, prepare_model
from vggt_quant.model.config import NAMED
from vggt_quant.model.pretrained import load_pretrained, resolve


def photos(folder):
    """Two photos of soft noise as a stage gets them, preprocessed to 112 x 84 pixels."""
    noise = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        small = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / name)
    return prepare_images(str(folder), folder / "images.safetensors", size=112, mode="crop", max_images=None)[0]


def nano_with(folder, change, *, weights="nano-random", **sizes):
    """A folder with the nano model, its tensors edited by `change` and its config by `sizes`."""
    folder.mkdir()
    config = dataclasses.replace(NAMED["nano"], **sizes)
    state = load_pretrained(resolve(weights)).state_dict()
    absent = tuple(f"{name}." for name, size in sizes.items() if size is None)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(absent)}
    change(state)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return prepare_model(str(folder))
