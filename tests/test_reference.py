"""The fp32 reference: stored as the model gave it, kept until something that decides it changes, never damaged."""

import shutil
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from small_run import known_scenes, nano_with, photos, write_known_scenes

from vggt_quant.data.prepare import prepare_images, prepare_model
from vggt_quant.evaluation.reference import load_outputs, make_reference
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.runtime.tensor_file import TensorFileError, read_tensors


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


def is_cached(result):
    (scene,) = result.scenes
    return scene.cached


def test_outputs_come_back_as_the_model_gave_them(images, tmp_path):
    result = make_reference(prepare_model("nano-random"), images, tmp_path, "cpu")
    with torch.inference_mode():
        expected = load_pretrained(resolve("nano-random"))(read_tensors(images.scenes[0].path)["images"])
    outputs = load_outputs(result.scenes[0].path)
    assert outputs.keys() == expected.keys() == result.outputs.keys()
    for name, value in expected.items():
        pairs = zip(value, outputs[name], strict=True) if isinstance(value, list) else [(value, outputs[name])]
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs), name
    assert result.outputs["pose_enc_list"].type == f"list of {len(expected['pose_enc_list'])}"
    assert result.outputs["depth"].shape == list(expected["depth"].shape)


def test_the_cache_answers_the_same_question_only(images, tmp_path):
    nano = prepare_model("nano-random")
    first = make_reference(nano, images, tmp_path, "cpu")
    assert not is_cached(first)
    again = make_reference(nano, images, tmp_path, "cpu")
    assert (is_cached(again), again.scenes[0].key, again.outputs) == (True, first.scenes[0].key, first.outputs)
    assert not is_cached(make_reference(prepare_model("nano-random:1"), images, tmp_path, "cpu"))
    other = replace(images, scenes=[replace(images.scenes[0], tensor_sha256="another")])
    assert not is_cached(make_reference(nano, other, tmp_path, "cpu"))


def test_a_new_scene_leaves_the_others_outputs_in_the_cache(tmp_path):
    nano = prepare_model("nano-random")
    two = known_scenes(tmp_path, "court", "tower")
    assert [scene.cached for scene in make_reference(nano, two, tmp_path / "cache", "cpu").scenes] == [False, False]
    write_known_scenes(tmp_path / "more", "hall")
    shutil.move(tmp_path / "more" / "hall", tmp_path / "scenes")
    three = prepare_images(str(tmp_path / "scenes"), tmp_path / "images", size=112, mode="crop")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "reference").iterdir()}
    made = make_reference(nano, three, tmp_path / "cache", "cpu")
    assert [(scene.scene, scene.cached) for scene in made.scenes] == [("court", True), ("hall", False), ("tower", True)]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "and nothing was computed anew"


def test_damaged_outputs_in_the_cache_are_made_again(images, tmp_path, caplog):
    nano = prepare_model("nano-random")
    path = Path(make_reference(nano, images, tmp_path, "cpu").scenes[0].path)
    good = path.read_bytes()
    for bad in (good[:-9], good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], b""):
        path.write_bytes(bad)
        with pytest.raises(TensorFileError, match=str(path)):
            load_outputs(path)
        assert not is_cached(make_reference(nano, images, tmp_path, "cpu"))
        assert path.read_bytes() == good
    assert f"Making {path} again" in caplog.text


def test_a_reference_that_is_not_finite_is_refused_and_not_kept(images, tmp_path):
    model = nano_with(tmp_path / "nan", lambda state: state["aggregator.camera_token"].fill_(torch.nan))
    with pytest.raises(ValueError, match="reference of photos.* is not finite in .*pose_enc"):
        make_reference(model, images, tmp_path / "cache", "cpu")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
