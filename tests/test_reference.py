"""The fp32 reference: stored as the model gave it, kept until something that decides it changes, never damaged."""

import dataclasses
from pathlib import Path

import pytest
import torch
from small_run import nano_with, photos

from vggt_quant.inputs import prepare_model
from vggt_quant.model.pretrained import load_pretrained, resolve
from vggt_quant.reference import load_outputs, make_reference
from vggt_quant.tensor_file import TensorFileError, read_tensors


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


def test_outputs_come_back_as_the_model_gave_them(images, tmp_path):
    result = make_reference(prepare_model("nano-random"), images, tmp_path, "cpu")
    with torch.inference_mode():
        expected = load_pretrained(resolve("nano-random"))(read_tensors(images.path)["images"])
    outputs = load_outputs(result.path)
    assert outputs.keys() == expected.keys() == result.outputs.keys()
    for name, value in expected.items():
        pairs = zip(value, outputs[name], strict=True) if isinstance(value, list) else [(value, outputs[name])]
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs), name
    assert result.outputs["pose_enc_list"].type == f"list of {len(expected['pose_enc_list'])}"
    assert result.outputs["depth"].shape == list(expected["depth"].shape)


def test_the_cache_answers_the_same_question_only(images, tmp_path):
    nano = prepare_model("nano-random")
    first = make_reference(nano, images, tmp_path, "cpu")
    assert not first.cached
    again = make_reference(nano, images, tmp_path, "cpu")
    assert (again.cached, again.key, again.outputs) == (True, first.key, first.outputs)
    assert not make_reference(prepare_model("nano-random:1"), images, tmp_path, "cpu").cached
    other = dataclasses.replace(images, tensor_sha256="another")
    assert not make_reference(nano, other, tmp_path, "cpu").cached


def test_damaged_outputs_in_the_cache_are_made_again(images, tmp_path, caplog):
    nano = prepare_model("nano-random")
    path = Path(make_reference(nano, images, tmp_path, "cpu").path)
    good = path.read_bytes()
    for bad in (good[:-9], good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], b""):
        path.write_bytes(bad)
        with pytest.raises(TensorFileError, match=str(path)):
            load_outputs(path)
        assert not make_reference(nano, images, tmp_path, "cpu").cached
        assert path.read_bytes() == good
    assert f"Making {path} again" in caplog.text


def test_a_reference_that_is_not_finite_is_refused_and_not_kept(images, tmp_path):
    model = nano_with(tmp_path / "nan", lambda state: state["aggregator.camera_token"].fill_(torch.nan))
    with pytest.raises(ValueError, match="not finite in .*pose_enc"):
        make_reference(model, images, tmp_path / "cache", "cpu")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
