"""CI calls make and nothing else, with actions that cannot change; and there a test that skips fails."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from workflow_project import ROOT

CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
# A bare Debian has neither make nor Python.
PREPARE = "apt-get update && apt-get install --yes --no-install-recommends "


def steps(key):
    """What the steps of all jobs have under a key, with each value of a job's matrix put in."""
    found = []
    for job in CI["jobs"].values():
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [""])
        values = [step[key] for step in job["steps"] if key in step]
        found += [value.replace("${{ matrix.target }}", target) for target in targets for value in values]
    return found


def recipe(*words):
    """The commands of a target as on a fresh checkout, not run."""
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", *words]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.replace("\\\n", " ")


def test_every_step_calls_make_with_a_target_that_exists():
    called = [step for step in steps("run") if not step.startswith(PREPARE)]
    targets = [re.fullmatch(r'make (\S+)( IMAGE_FLAGS="\$FLAGS")?', step)[1] for step in called]
    assert set(targets) == {"test", "test-cluster", "test-image", "image"}
    for target in targets:
        assert recipe(target)


def test_actions_are_pinned_by_commit():
    actions = steps("uses")
    assert actions
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)


@pytest.mark.parametrize(
    ("target", "script", "tests"),
    [
        ("test-cluster", "cluster", ("slurm", "s3_storage", "kubernetes", "workflow_gpus")),
        ("test-image", "image", ("image",)),
    ],
)
def test_a_target_installs_the_tools_of_its_tests_and_lets_none_skip(target, script, tests):
    commands = recipe(target)
    assert commands.index(f"tests/install_{script}_tools.sh") < commands.index("/pytest --no-skips")
    files = set(re.findall(r"tests/test_\w+\.py", commands))
    assert files == {f"tests/test_{name}.py" for name in tests}
    assert all((ROOT / file).is_file() for file in files)


def test_what_ci_runs_on_a_clean_checkout_installs_no_system_packages():
    assert "install_" not in recipe("test")


def test_the_flags_of_the_image_reach_the_build_of_both_targets():
    flags = '--build-arg TORCH="torch --index-url https://example.com"'
    assert f"$target {flags} ." in recipe("image", f"IMAGE_FLAGS={flags}")
    assert "for target in runtime runpod;" in recipe("image")


def test_lock_makes_the_hashes_of_the_image_anew():
    assert recipe("lock") == "docker/lock.sh\n"
    assert os.access(ROOT / "docker" / "lock.sh", os.X_OK)
    assert "make lock" in (ROOT / "docker" / "README.md").read_text()


@pytest.mark.parametrize(("flags", "code", "word"), [([], 0, "2 skipped"), (["--no-skips"], 1, "no Slurm here")])
def test_a_skip_is_a_failure_where_it_would_prove_nothing(tmp_path, flags, code, word):
    """Whether the test skips or its fixture does."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def node():\n"
        "    pytest.skip('no Slurm here')\n"
        "def test_one(node):\n"
        "    pass\n"
        "def test_two():\n"
        "    pytest.skip('no Slurm here')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", *flags, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == code, process.stdout
    assert word in process.stdout
