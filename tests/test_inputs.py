"""The two inputs: which model, which photos; both identified by what they hold."""

import pytest
import torch
from PIL import Image
from small_run import nano_with, photos

from vggt_quant.inputs import prepare_images, prepare_model
from vggt_quant.tensor_file import TensorFileError, read_tensors


def test_random_weights_are_called_so_and_differ_by_their_seed():
    first, second = prepare_model("nano-random"), prepare_model("nano-random:1")
    assert first.random_weights and first.label == "random weights (seed 0)"
    assert first.weights_sha256 != second.weights_sha256
    assert first.num_parameters == second.num_parameters > 0


def test_weights_in_a_folder_carry_its_name_and_change_with_their_bytes(tmp_path):
    plain = nano_with(tmp_path / "plain", lambda state: None)
    other = nano_with(tmp_path / "other", lambda state: state["camera_head.embed_pose.bias"].add_(1))
    assert not plain.random_weights and plain.label == str(tmp_path / "plain")
    assert plain.weights_sha256 != other.weights_sha256
    assert plain.num_parameters == prepare_model("nano-random").num_parameters


def test_photos_are_prepared_once_and_identified_by_their_pixels(tmp_path):
    first = photos(tmp_path)
    assert list(read_tensors(first.path)["images"].shape) == first.shape == [2, 3, 84, 112]
    assert photos(tmp_path) == first
    (tmp_path / "c").mkdir()
    Image.new("RGB", (160, 120), "red").save(tmp_path / "a.png")
    assert photos_of(tmp_path, tmp_path / "c").tensor_sha256 != first.tensor_sha256


def photos_of(folder, out):
    return prepare_images(str(folder), out / "images.safetensors", size=112, mode="crop", max_images=None)[0]


def test_drawn_photos_are_as_many_as_asked_for(tmp_path):
    result, line = prepare_images("drawn", tmp_path / "x.safetensors", size=56, mode="crop", max_images=1)
    assert result.shape[0] == 1 and "1" in line
    assert read_tensors(result.path)["images"].std() > 0.05


def test_damaged_photos_are_refused_by_name(tmp_path):
    result = photos(tmp_path)
    with open(result.path, "r+b") as file:
        file.seek(-5, 2)
        file.write(b"damage"[:5])
    with pytest.raises(TensorFileError, match=r"images\.safetensors is damaged"):
        read_tensors(result.path)


def test_images_of_one_size_are_in_the_unit_range(tmp_path):
    images = read_tensors(photos(tmp_path).path)["images"]
    assert images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
