"""Folders become scenes; the two layouts with ground truth have tests of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from eth3d_scene import write_scene
from test_images import write_photo
from test_scenes_seven_scenes import write_frame

from vggt_quant.data.images import load_images
from vggt_quant.data.scene import find_scenes, load_scene
from vggt_quant.data.truth.frames import Truth, store_truth
from vggt_quant.runtime.tensor_file import read_tensors, write_tensors


def write_small(folder: Path) -> Path:
    write_scene(folder, count=2, size=(56, 42), pinhole=(30.0, 30.0, 28.5, 21.5), aligned=True)
    return folder


def test_a_plain_folder_is_a_scene_without_truth(tmp_path: Path) -> None:
    paths = tuple(write_photo(tmp_path / "trip" / name) for name in ("a.png", "b.png"))
    (tmp_path / "trip" / "broken.jpg").write_bytes(b"")
    scene = load_scene(tmp_path / "trip", size=28, mode="pad")
    assert (scene.name, scene.kind, scene.truth, scene.paths) == ("trip", "photos", None, paths)
    assert scene.skipped == ((tmp_path / "trip" / "broken.jpg", "empty (0 bytes)"),)
    assert torch.equal(scene.images, load_images(paths, "pad", size=28))


def test_so_many_photos_are_taken_as_are_asked_for(tmp_path: Path) -> None:
    scene = load_scene(write_small(tmp_path), size=56, max_images=1)
    assert scene.images.shape[0] == len(scene.paths) == scene.truth.depths.shape[0] == 1
    assert scene.truth.extrinsics.shape == (1, 3, 4) and scene.truth.intrinsics.shape == (1, 3, 3)


def test_photos_beside_eth3ds_folders_are_plain_photos(tmp_path: Path) -> None:
    write_photo(write_small(tmp_path) / "overview.png")
    scene = load_scene(tmp_path, size=28)
    assert (scene.kind, scene.truth, len(scene.paths)) == ("photos", None, 1)


def test_a_folder_with_photos_or_a_layout_is_one_scene(tmp_path: Path) -> None:
    write_photo(tmp_path / "plain" / "a.png")
    write_small(tmp_path / "eth3d")
    write_frame(tmp_path / "seq-01", 0)
    for name in ("plain", "eth3d", "seq-01"):
        assert find_scenes(tmp_path / name) == [tmp_path / name]


def test_subfolders_of_a_known_layout_are_scenes_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_frame(tmp_path / "seq-02", 0)
    write_small(tmp_path / "courtyard")
    write_frame(tmp_path / "seq-01", 0)
    write_photo(tmp_path / "notes" / "scribble.png")
    write_frame(tmp_path / ".hidden", 0)
    write_frame(tmp_path / "seq-03.incomplete", 0)
    assert find_scenes(str(tmp_path)) == [tmp_path / name for name in ("courtyard", "seq-01", "seq-02")]


def test_photos_in_plain_subfolders_stay_one_scene(tmp_path: Path) -> None:
    write_photo(tmp_path / "monday" / "a.png")
    write_photo(tmp_path / "tuesday" / "b.png")
    assert find_scenes(tmp_path) == [tmp_path]
    scene = load_scene(tmp_path, size=28)
    assert (scene.kind, len(scene.paths)) == ("photos", 2)


def test_what_lies_beside_scenes_with_truth_is_named_and_not_used(tmp_path: Path, caplog) -> None:
    write_photo(tmp_path / "cover.png")
    write_photo(tmp_path / "kitchen" / "a.png")
    write_small(tmp_path / "courtyard")
    assert find_scenes(tmp_path) == [tmp_path / "courtyard"]
    assert "not used are kitchen, its photos" in caplog.text


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_photos_is_no_scene(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{name}.*(check its path|give a folder that holds)"):
        find_scenes(tmp_path / name)


def test_truth_survives_a_tensor_file(tmp_path: Path) -> None:
    truth = load_scene(write_small(tmp_path / "scene"), size=56, mode="pad").truth
    tensors = store_truth(truth)
    assert list(tensors) == ["extrinsics", "intrinsics", "depths"]
    write_tensors({**tensors, "images": torch.zeros(1)}, tmp_path / "truth.safetensors")
    stored = read_tensors(tmp_path / "truth.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(stored[name], getattr(truth, name)) and stored[name].dtype == getattr(truth, name).dtype
        assert torch.equal(stored[name], tensor)


def test_what_is_not_known_is_not_stored() -> None:
    truth = Truth(extrinsics=torch.zeros(1, 3, 4), intrinsics=None, depths=None, unit="unknown")
    assert list(store_truth(truth)) == ["extrinsics"]
