"""What `compare` checks of its model and folders before anything starts, without torch."""

import subprocess
import sys

import pytest

from vggt_quant.cli import _model_names
from vggt_quant.cli._configuration import configuration
from vggt_quant.cli.main import parser
from vggt_quant.model.config import NAMED
from vggt_quant.model.weights import pretrained
from vggt_quant.variants import read_comparison


def settings_of(*flags):
    return configuration(parser().parse_args(["compare", "--device", "cpu", *flags]))


def test_names_of_models_are_those_that_the_steps_know():
    assert set(_model_names.BUNDLED) == set(pretrained.BUNDLED)
    assert set(_model_names.RANDOM) == {f"{name}-random" for name in NAMED}
    assert set(_model_names.WEIGHT_FILES) == {".safetensors", *pretrained.PICKLED}


@pytest.mark.parametrize("model", ["tiny", "tiny-outliers", "nano-random:7", "owner/name.v2", "here.pt"])
def test_a_model_that_there_may_be_is_taken(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.pt").touch()
    assert settings_of("--model", model)["model"].endswith(model)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("tny", "There is no model 'tny' (did you mean 'tiny'?); --model takes a hub model such as facebook/VGGT-1B,"),
        ("nano-randm", "There is no model 'nano-randm' (did you mean 'nano-random'?); "),
        ("nano-random:x", "There is no model 'nano-random:x' (did you mean 'nano-random'?); "),
        ("weights/model.safetensors", "There is no model 'weights/model.safetensors'; "),
        ("./owner/name", "There is no model './owner/name'; "),
        ("", "There is no model ''; "),
    ],
)
def test_a_model_that_there_is_not_is_refused_and_the_near_name_suggested(tmp_path, monkeypatch, model, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as refused:
        settings_of("--model", model)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("model", ["tny", "weights/model.safetensors", "./owner/name", ""])
def test_what_is_refused_here_the_step_would_refuse_too(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        pretrained.resolve(model, offline=True)


@pytest.mark.parametrize("flag", ["--images", "--calibration-folder"])
def test_a_folder_without_a_photo_in_it_or_below_is_refused(tmp_path, flag):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "notes.txt").touch()
    with pytest.raises(ValueError) as refused:
        settings_of(flag, str(folder))
    assert str(refused.value).startswith(f"There is no photo in {folder} or below it; {flag} takes a folder of ")
    (folder / "inner" / "A.JPG").touch()
    assert settings_of(flag, str(folder))


def test_a_link_to_another_folder_is_left_to_the_step_that_reads_photos(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path)
    assert settings_of("--images", str(tmp_path / "photos"))


def test_the_check_imports_no_torch(tmp_path):
    (tmp_path / "a.png").touch()
    code = (
        "import sys; from vggt_quant.cli._configuration import configuration; from vggt_quant.cli.main import parser;"
        f"configuration(parser().parse_args(['compare', '--model', 'tiny', '--images', {str(tmp_path)!r}]));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("key", ["variants", "methods"])
def test_one_name_needs_no_brackets(key):
    assert read_comparison({key: "bf16"})[0].variants == ["bf16"]
    assert read_comparison({key: "null"})[0].variants is None


@pytest.mark.parametrize("key", ["variants", "methods"])
def test_what_is_no_list_of_names_is_refused_by_the_key_that_was_given(key):
    with pytest.raises(
        ValueError, match=rf"^config: {key} should be a list of names such as \[bf16, .*\], but is 'a,b'"
    ):
        read_comparison({key: "a,b"})
