"""`vggt-quant compare` once more into an output folder that has been used."""

import json

import pytest
import yaml

from vggt_quant.cli import _configuration, _older_results
from vggt_quant.cli import main as cli
from vggt_quant.cli.main import parser
from vggt_quant.results.files import write_text


def settings_of(*flags):
    words = ["compare", "--model", "nano-random", "--device", "cpu", *flags]
    return _configuration.configuration(parser().parse_args(words))


@pytest.fixture
def out(tmp_path):
    """An output folder in which one variant is packed."""
    out = tmp_path / "out"
    (out / "quantize").mkdir(parents=True)
    (out / "quantize" / "fp32.json").write_text("{}")
    write_text(yaml.safe_dump(settings_of()), out / "config.yaml")
    return out


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--model", "tiny"), "--model nano-random, not tiny"),
        (("--images", "PHOTOS", "--calibration-folder", "drawn"), "--images drawn, not PHOTOS"),
        (("--max-scenes", "3"), "--max-scenes none, not 3"),
        (("--max-images", "2"), "--max-images none, not 2"),
        (("--image-mode", "pad"), "--image-mode crop, not pad"),
        (("--calibration-folder", "none"), "--calibration-folder drawn, not none"),
        (("--max-scenes", "3", "--image-mode", "pad"), "--max-scenes none, not 3 and --image-mode crop, not pad"),
    ],
)
def test_results_of_another_comparison_are_kept(out, tmp_path, flags, difference):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    photos = str(tmp_path / "photos")
    other = settings_of(*(flag.replace("PHOTOS", photos) for flag in flags))
    with pytest.raises(ValueError) as refusal:
        _configuration.expect_same_comparison(other, out)
    cure = "choose another --output, or delete that folder."
    assert str(refusal.value) == f"{out} holds results for {difference.replace('PHOTOS', photos)}: {cure}"


@pytest.mark.workflow
def test_a_refused_comparison_changes_nothing_and_says_so_in_a_sentence(out, capsys):
    before = (out / "config.yaml").read_bytes()
    flags = ["--model", "nano-random", "--variants", "fp32", "--max-images", "2", "--max-scenes", "1"]
    assert cli.main(["compare", *flags, "--device", "cpu", "--output", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{out} holds results for --max-scenes none, not 1 and --max-images none, not 2: choose another" in said
    assert "Traceback" not in said
    assert (out / "config.yaml").read_bytes() == before
    assert not (out / ".snakemake").exists()


def test_other_methods_devices_and_caches_go_into_the_same_folder(out):
    same = settings_of("--variants", "fp32,int4_group64", "--device", "auto", "--cache", "elsewhere")
    _configuration.expect_same_comparison(same, out)


def test_the_same_photos_by_a_relative_path_are_the_same(tmp_path, out, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    write_text(yaml.safe_dump(settings_of("--images", str(tmp_path / "photos"))), out / "config.yaml")
    monkeypatch.chdir(tmp_path)
    _configuration.expect_same_comparison(settings_of("--images", "photos/"), out)


def test_a_folder_in_which_nothing_was_finished_takes_any_comparison(out):
    (out / "quantize" / "fp32.json").unlink()
    _configuration.expect_same_comparison(settings_of("--max-images", "2"), out)


@pytest.mark.parametrize("text", ["model: tiny\n", "[1, 2]\n", "", "a: b: c\n", "images: none\nmodel: tiny\n"])
def test_a_config_that_compare_did_not_write_is_not_replaced(out, text):
    (out / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml is not one that compare wrote: choose another --output"):
        _configuration.expect_same_comparison(settings_of(), out)
    assert (out / "config.yaml").read_text() == text


@pytest.mark.workflow
def test_a_dry_run_is_refused_what_the_run_is(out, capsys):
    words = ["compare", "--model", "tiny", "--variants", "fp32", "--device", "cpu", "--output", str(out), "--dry-run"]
    assert cli.main(words) == 2
    assert f"{out} holds results for --model nano-random, not tiny: choose" in capsys.readouterr().err
    (out / "config.yaml").write_text("model: [")
    assert cli.main(words) == 2
    assert "config.yaml is not one that compare wrote: choose another --output" in capsys.readouterr().err


@pytest.mark.workflow
def test_a_dry_run_changes_no_settings(out, capfd):
    before = (out / "config.yaml").read_bytes()
    flags = ["--model", "nano-random", "--variants", "fp32", "--device", "cpu", "--dry-run"]
    assert cli.main(["compare", *flags, "--output", str(out)]) == 0
    assert "quantize_fp32" in "".join(capfd.readouterr())
    assert (out / "config.yaml").read_bytes() == before


def test_a_config_of_an_older_version_is_understood(out):
    older = settings_of("--variants", "fp32")
    older["methods"] = older.pop("variants")
    del older["calibration"], older["images"]["mode"]
    write_text(yaml.safe_dump(older), out / "config.yaml")
    _configuration.expect_same_comparison(settings_of("--calibration-folder", "none"), out)
    with pytest.raises(ValueError, match="holds results for --model nano-random, not tiny: choose another"):
        _configuration.expect_same_comparison(settings_of("--calibration-folder", "none", "--model", "tiny"), out)


def test_results_of_an_older_version_are_named_and_damage_and_other_variants_are_none(out):
    cure = "they are measured again, checkpoints whose key is unchanged are reused, and files in cache/checkpoints"
    cure += " that no result names may be deleted."
    sentence = f"{out} holds results of an older version: {cure}"
    assert _older_results.remark(out, ["fp32"]) == sentence  # {} lacks every field
    assert _older_results.remark(out, ["bf16"]) is None
    (out / "quantize" / "fp32.json").write_text('{"cut')
    assert _older_results.remark(out, ["fp32"]) is None
    (out / "model.json").write_text('{"name": "tiny"}')
    assert _older_results.remark(out, []) == sentence


def test_the_workflow_is_told_of_results_of_an_older_version(out, monkeypatch, capsys):
    monkeypatch.chdir(out)
    assert cli.main(["keys", "--config", "config.yaml"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith(f"{out} holds results of an older version")


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_copy_of_results_without_the_workflows_records_is_refused_in_one_sentence(out, capsys, flags):
    (out / "model.json").write_text('{"name": "of an older version"}')
    words = ["compare", "--model", "nano-random", "--variants", "fp32", "--device", "cpu", "--output", str(out), *flags]
    assert cli.main(words) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"{out} holds results that were not made from this working directory" in sentence
    assert sentence.endswith("choose another --output, or delete them; the cache may stay.")
    assert not (out / ".snakemake").exists()
