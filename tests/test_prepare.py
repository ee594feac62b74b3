"""The two inputs: which model, which photos; both identified by what they hold."""

import shutil

import pytest
import torch
from PIL import Image
from small_run import known_scenes, nano_with, photos, write_known_scenes

from vggt_quant.data.prepare import prepare_calibration, prepare_images, prepare_model
from vggt_quant.data.scene import load_scene
from vggt_quant.data.truth.frames import store_truth
from vggt_quant.results.scenes_in_words import scenes_in_words
from vggt_quant.runtime.tensor_file import TensorFileError, read_tensors


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
    images = photos(tmp_path)
    (first,) = images.scenes
    assert list(read_tensors(first.path)["images"].shape) == first.shape == [2, 3, 84, 112]
    assert photos(tmp_path) == images
    Image.new("RGB", (160, 120), "red").save(tmp_path / "a.png")
    (changed,) = prepare_images(str(tmp_path), tmp_path / "other", size=112, mode="crop").scenes
    assert changed.tensor_sha256 != first.tensor_sha256
    assert changed.image_sha256[0] != first.image_sha256[0] and changed.image_sha256[1] == first.image_sha256[1]


def test_plain_photos_are_one_scene_of_which_no_truth_is_known(tmp_path):
    images = photos(tmp_path)
    (scene,) = images.scenes
    assert (scene.kind, scene.truth, scene.unit) == ("photos", [], None)
    assert list(read_tensors(scene.path)) == ["images"]
    assert scenes_in_words(images) == f"2 photos of 84 x 112 pixels (crop) from {tmp_path}"


def test_the_truth_lies_beside_the_pixels_that_it_belongs_to(tmp_path):
    images = known_scenes(tmp_path, "court", "tower")
    assert [(scene.name, scene.kind, scene.unit) for scene in images.scenes] == [
        ("court", "eth3d", "metre"),
        ("tower", "eth3d", "metre"),
    ]
    assert images.scenes[0].truth == ["poses", "intrinsics", "depth"]
    where = f"2 scenes in {tmp_path / 'scenes'}, court to tower"
    assert scenes_in_words(images) == f"4 photos of 84 x 112 pixels (crop) in {where}"
    stored = read_tensors(images.scenes[1].path)
    known = load_scene(tmp_path / "scenes" / "tower", size=112)
    assert torch.equal(stored["images"], known.images)
    for name, tensor in store_truth(known.truth).items():
        assert torch.equal(stored[name], tensor), name


def test_parts_that_are_known_of_no_photo_are_not_listed(tmp_path):
    write_known_scenes(tmp_path, "court")
    shutil.rmtree(tmp_path / "court" / "ground_truth_depth")
    (scene,) = prepare_images(str(tmp_path), tmp_path / "images", size=112, mode="crop").scenes
    assert scene.truth == ["poses", "intrinsics"]


def test_scenes_and_their_photos_are_at_most_as_many_as_asked_for(tmp_path):
    write_known_scenes(tmp_path / "scenes", "court", "tower", "hall")
    settings = {"size": 112, "mode": "crop", "max_images": 1, "max_scenes": 2}
    images = prepare_images(str(tmp_path / "scenes"), tmp_path / "images", **settings)
    assert [(scene.name, scene.shape[0]) for scene in images.scenes] == [("court", 1), ("hall", 1)]


def test_two_scenes_of_one_name_are_refused_before_one_overwrites_the_other(tmp_path):
    for day in ("monday", "tuesday"):
        write_known_scenes(tmp_path / day, "seq-01")
        (tmp_path / "scenes" / day).parent.mkdir(exist_ok=True)
        (tmp_path / "scenes" / day).symlink_to(tmp_path / day / "seq-01")
    with pytest.raises(ValueError, match=r"monday and .*tuesday are both scenes named seq-01; rename one"):
        prepare_images(str(tmp_path / "scenes"), tmp_path / "images", size=112, mode="crop")


def test_drawn_rooms_are_square_and_as_many_as_asked_for(tmp_path):
    settings = {"size": 56, "mode": "crop", "max_images": 2, "max_scenes": 3}
    images = prepare_images("drawn", tmp_path / "images", **settings)
    assert [scene.shape for scene in images.scenes] == 3 * [[2, 3, 56, 56]]
    assert all(scene.truth == ["poses", "intrinsics", "depth"] for scene in images.scenes)
    assert read_tensors(images.scenes[0].path)["images"].std() > 0.05


def test_rooms_to_calibrate_with_are_others_than_those_compared_on(tmp_path):
    settings = {"size": 56, "mode": "crop", "max_images": 1, "max_scenes": 2}
    images = prepare_images("drawn", tmp_path / "images", **settings)
    calibration = prepare_calibration("drawn", tmp_path / "calibration", images, **settings)
    seen = [sha256 for result in (images, calibration) for scene in result.scenes for sha256 in scene.image_sha256]
    assert len(set(seen)) == len(seen) == 4


def test_a_photo_is_never_compared_on_and_calibrated_with(tmp_path):
    """Not even under another name, in another scene, cut to another size."""
    images = known_scenes(tmp_path, "court", "tower")
    hall = write_known_scenes(tmp_path / "others", "hall") / "hall" / "images" / "dslr_images_undistorted"
    shutil.copy(images.scenes[1].paths[1], hall / "Z.PNG")
    sentence = r"^The calibration scene hall shares the photo Z\.PNG .* scene tower, .*other scenes\.$"
    with pytest.raises(ValueError, match=sentence):
        prepare_calibration(str(tmp_path / "others"), tmp_path / "calibration", images, size=56, mode="crop")


def test_damaged_photos_are_refused_by_name(tmp_path):
    result = photos(tmp_path)
    with open(result.scenes[0].path, "r+b") as file:
        file.seek(-5, 2)
        file.write(b"damage"[:5])
    with pytest.raises(TensorFileError, match=r"\.safetensors is damaged"):
        read_tensors(result.scenes[0].path)


def test_images_of_one_size_are_in_the_unit_range(tmp_path):
    images = read_tensors(photos(tmp_path).scenes[0].path)["images"]
    assert images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
