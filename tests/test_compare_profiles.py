"""Who runs the jobs of `vggt-quant compare`: a workflow profile of this package, or one of your own."""

import os
import subprocess
import sys

import pytest
import yaml
from workflow_project import ROOT

from vggt_quant.cli import _profile, compare
from vggt_quant.cli import main as cli

PROFILES = ROOT / "workflow" / "profiles"
NAMES = ("default", "kubernetes", "runpod", "slurm")


def write_profile(folder, text):
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    return str(folder)


def words(folder, profile):
    return compare.snakemake(folder / "config.yaml", folder, profile)


def after(words, flag):
    """The words behind a flag, up to the next flag."""
    values = []
    for word in words[words.index(flag) + 1 :]:
        if word.startswith("--"):
            break
        values.append(word)
    return values


def refusal(capsys, *more):
    """What `compare` says when it refuses its words."""
    assert cli.main(["compare", *more]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return shown.err


def test_all_packaged_profiles_go_on_after_a_failure_and_print_no_failed_logs():
    """One of each two logs is JSON, and the partial report says in a sentence what failed."""
    assert sorted(folder.name for folder in PROFILES.iterdir()) == sorted(NAMES)
    for name in NAMES:
        settings = yaml.safe_load((PROFILES / name / "config.yaml").read_text())
        assert settings["keep-going"] and settings["rerun-incomplete"], name
        assert "timing=1" in settings["resources"], name
        assert "show-failed-logs" not in settings, name


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("flags", "variable", "used"),
    [
        ((), "", "default"),
        ((), "runpod", "runpod"),
        (("--workflow-profile", "runpod"), "nowhere", "runpod"),
    ],
)
def test_flag_then_variable_then_default_choose_the_profile(tmp_path, flags, variable, used):
    settings = ["--model", "nano-random", "--variants", "fp32", "--device", "cpu", "--dry-run"]
    command = [sys.executable, "-P", "-m", "vggt_quant", "compare", *settings, *flags]
    environment = {**os.environ, "VGGT_QUANT_PROFILE": variable}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert f"profile {PROFILES / used} for setting default" in process.stderr


def test_a_name_of_the_package_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    """A checkout has a folder `runpod`, too."""
    monkeypatch.chdir(tmp_path)
    mine = write_profile(tmp_path / "runpod", "keep-going: true\n")
    assert _profile.find_profile("runpod").folder == PROFILES / "runpod"
    assert str(_profile.find_profile("./runpod").folder) == mine


def test_a_local_profile_gets_all_processor_cores_unless_it_says_how_many(tmp_path):
    assert after(words(tmp_path, _profile.find_profile("default")), "--cores") == ["all"]
    mine = _profile.find_profile(write_profile(tmp_path / "mine", "cores: 1\n"))
    assert "--cores" not in words(tmp_path, mine)
    assert after(words(tmp_path, mine), "--workflow-profile") == [str(tmp_path / "mine")]


def test_a_cluster_is_not_held_to_the_gpus_and_cores_of_this_machine(tmp_path):
    profile = _profile.Profile(folder=PROFILES / "slurm", settings={"executor": "slurm", "jobs": 16})
    assert "--cores" not in words(tmp_path, profile)
    assert after(words(tmp_path, profile), "--resources") == ["timing=1"]


@pytest.mark.parametrize("text", [None, "[1, 2]\n", "a: b: c\n"])
def test_a_folder_without_a_readable_profile_is_refused(tmp_path, capsys, text):
    folder = write_profile(tmp_path / "mine", text or "")
    if text is None:
        (tmp_path / "mine" / "config.yaml").unlink()
    said = refusal(capsys, "--workflow-profile", folder)
    assert f"{folder}/config.yaml" in said


def test_an_unknown_profile_is_refused_with_the_names_of_those_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runpood" / "config.yaml"
    sentence = (
        f"There is no workflow profile {file}; give default, kubernetes, runpod, slurm or a folder that holds a"
        " config.yaml.\n"
    )
    assert refusal(capsys, "--workflow-profile", "runpood").endswith(sentence)
    monkeypatch.setenv("VGGT_QUANT_PROFILE", "runpood")
    assert refusal(capsys).endswith(sentence)
    assert not (tmp_path / "results").exists()


def test_a_profile_that_keeps_results_elsewhere_is_refused(capsys):
    said = refusal(capsys, "--workflow-profile", "kubernetes")
    assert "Workflow profile kubernetes keeps results in s3, but compare keeps them in --output" in said
    assert "docs/cluster.md" in said


def test_a_profile_whose_engine_is_not_installed_says_what_to_install(tmp_path, capsys):
    folder = write_profile(tmp_path / "mine", "executor: made-up\njobs: 2\n")
    said = refusal(capsys, "--workflow-profile", folder)
    assert said.endswith(
        "runs jobs by made-up, which is not installed here: pip install snakemake-executor-plugin-made-up.\n"
    )
