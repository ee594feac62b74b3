"""The command line as a user meets it: help, spellings, mistakes, a terminal or none, no network."""

import argparse
import json
import os
import pty
import re
import subprocess

import pytest
from PIL import Image
from processes import COMMAND

from vggt_quant.cli import _parser
from vggt_quant.cli import main as cli

COMMANDS = (
    *("compare", "doctor", "fetch", "images", "calibration", "model"),
    *("reference", "quantize", "accuracy", "speed", "report", "keys"),
)
NO_NETWORK = """
import socket

def refuse(*arguments, **settings):
    raise SystemExit("the network was asked")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
"""


def run(*words, **environment):
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, env={**os.environ, **environment}
    )


def subcommands():
    """Every subcommand with its parser."""
    return next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (56, 42), (80 * index, 90, 100)).save(folder / f"photo_{index}.png")
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def offline(tmp_path):
    """An environment in which any attempt to reach the network ends the process."""
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "sitecustomize.py").write_text(NO_NETWORK)
    path = os.pathsep.join([str(tmp_path / "offline"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path.rstrip(os.pathsep), "HF_HOME": str(tmp_path / "empty")}


def test_the_commands_are_these():
    assert tuple(sorted(subcommands())) == tuple(sorted(COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_flag_has_help(command, capsys):
    parser = subcommands()[command]
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: vggt-quant {command}" in capsys.readouterr().out


def test_help_and_doctor_need_no_network(offline):
    assert run("--help", **offline).returncode == 0
    assert run("doctor", **offline).returncode == 0
    assert run("model", "--model", "someone/something", **offline).stderr.endswith("the network was asked\n")


def test_the_doctor_fits_one_screen(offline):
    shown = run("doctor", COLUMNS="80", **offline)
    lines = shown.stdout.splitlines()
    assert shown.stderr == ""
    assert max(map(len, lines)) <= 80 and len(lines) <= 24
    for word in ("torch", "memory", "GPU", "free disk", "int4_group128"):
        assert word in shown.stdout


def test_the_doctor_names_the_kernel_of_each_variant():
    lines = {
        line.split("│")[1].strip(): line for line in run("doctor", COLUMNS="120").stdout.splitlines() if "│" in line
    }
    assert (
        "quantized::linear_dynamic" in lines["pytorch_dynamic_int8"]
        or "measured on the CPU" in lines["pytorch_dynamic_int8"]
    )
    assert "torch float32" in lines["fp32"] and "torch bfloat16" in lines["bf16"]
    assert "matmul" in lines["int8_symmetric"] or "kernel" in lines["int8_symmetric"]


def test_underscores_in_flags_are_hyphens():
    assert _parser.hyphenated("--max_images=a_b") == "--max-images=a_b"
    assert _parser.hyphenated("my_photos") == "my_photos"
    assert run("keys", "--no_such_flag").stderr.endswith("unrecognized arguments: --no-such-flag\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["images", "--max_images", "0"], r"argument --max-images: '0' is not a whole number from 1"),
        (["images", "--images", "nowhere"], r"nowhere"),
        (
            ["quantize", "--model", "nano-random", "--cache", "c", "--variant", "int5"],
            r"no variant 'int5'.*; there are fp32, ",
        ),
        (["quantize", "--model", "nano-random", "--variant", "fp32", "--device", "tpu"], r"--device: invalid choice"),
        (["quantize", "--model", "nano-randon", "--cache", "c", "--variant", "fp32"], r"nano-randon"),
        (["accuracy", "--model", "nano-random", "--packed", "no.safetensors"], r"no\.safetensors"),
        (["speed", "--packed", "no.json"], r"no\.json"),
        (["report", "--variants", "fp32", "--results", "nowhere"], r"no results in nowhere"),
        (["compare", "--variants", "int5"], r"no variant 'int5'.*; there are fp32, "),
        (["compare", "--images", "nowhere"], r"no folder nowhere; --images takes .*, or drawn\."),
        (
            ["compare", "--calibration-folder", "nowhere"],
            r"no folder nowhere; --calibration-folder .*, or drawn or none",
        ),
        (["images", "--max-scenes", "x"], r"argument --max-scenes: 'x' is not a whole number from 1"),
        (["compare", "--variants-file", "nowhere.yaml"], r"Cannot read the variants in nowhere\.yaml"),
        (["quantise"], r"invalid choice: 'quantise'"),
        ([], r"required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_a_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(words)
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2
    shown = capsys.readouterr()
    assert re.search(sentence, shown.err.splitlines()[-1])
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_images_says_how_many_where_and_which_is_first(photos, offline):
    """Also without a model: nobody should download 5 GB to see whether a folder holds photos."""
    shown = run("images", "--image_folder", photos, "--max_images", 2, **offline)
    assert shown.returncode == 0
    assert shown.stderr == f"2 photos of 392 x 518 pixels (crop) from {photos}, first photo_0.png\n"
    result = json.loads(shown.stdout)
    (scene,) = result["scenes"]
    assert scene["paths"] == [str(photos / "photo_0.png"), str(photos / "photo_1.png")]
    # VGGT-1B's width; 42/56 of it is 388.5, the nearest multiple of 14 is 392
    assert scene["shape"] == [2, 3, 392, 518]


def test_scenes_to_calibrate_with_are_refused_if_they_are_compared_on(photos, tmp_path, offline):
    size = ["--model", "nano-random", "--images", photos]
    assert run("images", *size, "--max-images", 1, "--result", tmp_path / "images.json", **offline).returncode == 0
    words = ["calibration", *size, "--compared", tmp_path / "images.json", "--result", tmp_path / "calibration.json"]
    refused = run(*words, **offline)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "calibration scene photos shares the photo photo_0.png with the compared scene photos" in refused.stderr
    (photos / "photo_0.png").unlink()
    made = run(*words, **offline)
    assert made.returncode == 0, made.stderr
    assert len(json.loads((tmp_path / "calibration.json").read_text())["scenes"][0]["paths"]) == 2


def test_the_stages_work_on_names_and_folders_without_result_files(photos, offline, tmp_path):
    made = run("quantize", "--model", "nano-random", "--variant", "int8_symmetric", "--cache", tmp_path, **offline)
    assert made.returncode == 0, made.stderr
    checkpoint = json.loads(made.stdout)["checkpoint"]
    names = ["--model", "nano-random", "--images", photos, "--packed", checkpoint, "--device", "cpu"]
    timed = run("speed", *names, TMPDIR=str(tmp_path), **offline)
    assert timed.returncode == 0, timed.stderr
    assert json.loads(timed.stdout)["shape"][0] == 3
    measured = run("accuracy", *names, "--cache", tmp_path, TMPDIR=str(tmp_path), **offline)
    assert measured.returncode == 0, measured.stderr
    result = json.loads(measured.stdout)
    assert result["scenes"][0]["num_images"] == 3
    assert 0 < result["scenes"][0]["outputs"]["depth"]["mse"] < 1
    assert not list(tmp_path.glob("tmp*")), "temporary photos were left behind"


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path, offline):
    words = ["quantize", "--model", "nano-random", "--variant", "int8_symmetric", "--result", tmp_path / "q.json"]
    silent = run(*words, "--cache", tmp_path / "a", **offline)
    assert silent.returncode == 0
    assert re.fullmatch(r"made \S+ \(\S+ MB\)\n", silent.stderr)

    terminal, inside = pty.openpty()
    environment = {**os.environ, **offline, "TERM": "xterm"}
    command = [*COMMAND, *map(str, words), "--cache", str(tmp_path / "b")]
    process = subprocess.Popen(command, stderr=inside, env=environment)
    os.close(inside)
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:
        pass  # how Linux says that the other side of a terminal is closed
    finally:
        os.close(terminal)
    assert process.wait() == 0
    assert b"round to nearest" in shown and b"%" in shown
