"""A run on the nano model and small scenes, stage by stage, for the tests of the stages."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
from eth3d_scene import write_scene
from PIL import Image
from safetensors.torch import save_file

from vggt_quant.data.prepare import prepare_images, prepare_model
from vggt_quant.evaluation.reference import make_reference
from vggt_quant.model.config import NAMED
from vggt_quant.model.weights.pretrained import load_pretrained, resolve


def photos(folder):
    """One scene of two photos of soft noise as a stage gets them, preprocessed to 112 x 84 pixels."""
    noise = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        small = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / name)
    return prepare_images(str(folder), folder / "images", size=112, mode="crop")


def nano_run(folder):
    """A nano model, one scene of one photo, and its float32 outputs."""
    Image.new("RGB", (56, 56), (90, 120, 60)).save(folder / "a.png")
    model = prepare_model("nano-random")
    images = prepare_images(str(folder), folder / "tensors", size=56, mode="crop")
    return SimpleNamespace(model=model, images=images, reference=make_reference(model, images, folder, "cpu"))


def write_known_scenes(folder, *names, count=2):
    """Scenes with ground truth, each by a lens that its name decides, of `count` photos of 112 x 84 pixels."""
    for name in names:
        focal = 60.0 + sum(map(ord, name)) % 50
        pinhole = (focal, focal, 56.0, 42.0)
        write_scene(folder / name, count=count, size=(112, 84), pinhole=pinhole, aligned=True)
    return folder


def known_scenes(folder, *names):
    """The same as a stage gets them."""
    return prepare_images(str(write_known_scenes(folder / "scenes", *names)), folder / "images", size=112, mode="crop")


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
