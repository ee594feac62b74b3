"""A product that cannot be written is refused before the work, in one sentence, and nothing is made or lost."""

import pytest

from vggt_quant.cli import main as cli

QUANTIZE = ["quantize", "--model", "nano-random", "--variant", "bf16", "--device", "cpu"]
COMPARE = ["compare", "--model", "nano-random", "--variants", "bf16", "--device", "cpu"]
SPEED = ["speed", "--model", "nano-random", "--variants", "bf16", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.safetensors").mkdir()
    (tmp_path / "d.json").mkdir()
    (tmp_path / "file").write_text("precious")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [*QUANTIZE, "--output", "d.safetensors"],
            "--output d.safetensors is a folder, but should be a file; give a name in it: d.safetensors/NAME.",
        ),
        (
            [*QUANTIZE, "--output", "/proc/x.safetensors"],
            "--output /proc/x.safetensors: nothing can be written in /proc (No such file or directory); choose a",
        ),
        ([*QUANTIZE, "--output", "file/x.safetensors"], "file, which is a file; give a name in a folder."),
        ([*QUANTIZE, "--output", "x.safetensors", "--result", "d.json"], "--result d.json is a folder, but should be"),
        ([*COMPARE, "--output", "file"], "--output file is a file, but should be a folder; give the name of another."),
        (
            [*COMPARE, "--output", "file/in", "--dry-run"],
            "file, which is a file, but should be a folder; give the",
        ),
        (
            [*COMPARE, "--output", "/proc/x"],
            "--output /proc/x: nothing can be written in /proc (No such file or directory); choose a folder",
        ),
        ([*SPEED, "--output", "file"], "--output file is a file, but should be a folder; give the name of another."),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_written_is_refused_with_its_path_and_a_cure(words, sentence, here, capsys):
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line and "Errno" not in line
    assert sorted(path.name for path in here.rglob("*")) == ["d.json", "d.safetensors", "file"]
    assert (here / "file").read_text() == "precious"


@pytest.mark.parametrize("command", ["compare", "quantize"])
def test_a_bad_setting_is_said_with_its_file_and_variant(command, here, capsys):
    (here / "my.yaml").write_text("a1: {method: round_to_nearst}")
    words = {"compare": ["--variants", "a1"], "quantize": ["--variant", "a1", "--output", "x.safetensors"]}[command]
    assert cli.main([command, "--model", "nano-random", "--variants-file", "my.yaml", *words, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "my.yaml: variant a1: There is no method 'round_to_nearst' (did you mean 'round_to_nearest'?)" in said
