"""runpod/start.sh on a volume that pods share: one at a time works on a run, and a run that broke off goes on."""

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from pods import ROOT, SECRETS, Pods, wait_until
from small_run import write_known_scenes

CRITICAL = "echo begin $RUNPOD_POD_ID >>order; {}; echo end $RUNPOD_POD_ID >>order"
HAS_NAMESPACES = not subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode


@pytest.fixture
def pods(tmp_path):
    pods = Pods(tmp_path)
    yield pods
    pods.end_all()


def order(pods):
    """Who began and who ended, in order of time."""
    file = pods.volume / "results" / "default" / "order"
    return file.read_text().splitlines() if file.exists() else []


def start_at_work(pods, name, *before, **settings):
    """A pod that has begun a run that takes long."""
    pod = pods.start(name, *before, VGGT_COMMAND=CRITICAL.format("sleep 100"), **settings)
    wait_until(lambda: f"begin {name}" in order(pods), pod)
    return pod


def test_a_second_pod_waits_for_the_first_and_says_for_whom(pods):
    first = pods.start("pod1", VGGT_COMMAND=CRITICAL.format("until [ -e go ]; do sleep 0.1; done"))
    wait_until(lambda: order(pods) == ["begin pod1"], first)
    second = pods.start("pod2", VGGT_COMMAND=CRITICAL.format("true"))
    time.sleep(5)  # longer than the three heartbeats after which a silent owner is taken for dead
    assert order(pods) == ["begin pod1"]
    (pods.volume / "results" / "default" / "go").touch()
    first.communicate()
    said, _ = second.communicate()
    assert re.search(rf"Pod pod1, process {first.pid} on \S+ \(since .*\) is at work on run default; waiting", said)
    assert "has gone" not in said
    assert order(pods) == ["begin pod1", "end pod1", "begin pod2", "end pod2"]


def test_a_second_pod_refuses_if_told_to_but_not_for_a_dead_one(pods):
    first = start_at_work(pods, "pod1")
    said = pods.run("pod2", VGGT_COMMAND="echo ran", VGGT_WHEN_BUSY="refuse")
    assert said.returncode == 1
    assert "is at work on run default; choose another VGGT_RUN_NAME, or wait." in said.stdout
    assert "\nran\n" not in said.stdout
    pods.kill(first, "pod1")
    assert "\nran\n" in pods.run("pod2", VGGT_COMMAND="echo ran", VGGT_WHEN_BUSY="refuse").stdout


def test_a_pod_that_waits_can_be_stopped(pods):
    start_at_work(pods, "pod1")
    second = pods.start("pod2", VGGT_COMMAND="echo ran")
    assert any("waiting for its end" in line for line in second.stdout)
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=4) == 143
    assert list(pods.volume.glob(".snakemake/leases/default/*/heartbeat")), "the first one's lease stays"


def test_different_runs_go_side_by_side_on_one_volume(pods):
    """Each waits for the other to have begun."""
    command = "touch begun; until [ -e ../{}/begun ]; do sleep 0.1; done"
    pair = [
        pods.start("pod1", VGGT_RUN_NAME="a", VGGT_COMMAND=command.format("b")),
        pods.start("pod2", VGGT_RUN_NAME="b", VGGT_COMMAND=command.format("a")),
    ]
    assert [pod.wait(timeout=30) for pod in pair] == [0, 0]


def test_of_many_pods_that_find_a_dead_ones_lease_one_after_the_other_takes_it(pods):
    pods.kill(start_at_work(pods, "dead"), "dead")
    takers = [pods.start(f"pod{index}", VGGT_COMMAND=CRITICAL.format("sleep 0.3")) for index in range(4)]
    said = [taker.communicate()[0] for taker in takers]
    assert [taker.returncode for taker in takers] == [0] * 4
    _, *lines = order(pods)
    assert len(lines) == 8
    assert all(end == begin.replace("begin", "end") for begin, end in zip(lines[::2], lines[1::2], strict=True))
    assert len(re.findall("Pod dead, .* has gone: taking over its run", "".join(said))) == 1


def test_a_pod_that_was_frozen_for_too_long_ends_its_run_when_another_has_taken_it(pods):
    frozen = start_at_work(pods, "pod1")
    pods.signal("pod1", signal.SIGSTOP)
    second = start_at_work(pods, "pod2")
    pods.signal("pod1", signal.SIGCONT)
    said, _ = frozen.communicate(timeout=20)
    assert "Another pod has taken over run default" in said
    assert frozen.returncode == 1
    assert order(pods) == ["begin pod1", "begin pod2"]
    assert second.poll() is None
    assert list(pods.volume.glob(".snakemake/leases/default/2/heartbeat")), "the second one's lease stays"


@pytest.mark.skipif(HAS_NAMESPACES is False, reason="this user may not make process namespaces (unshare --pid)")
def test_a_container_that_starts_again_goes_on_at_once(pods):
    """Its first process has the number of the dead one before it, 1, and no heartbeat needs to be waited for."""
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    first = start_at_work(pods, "pod1", *container, VGGT_HEARTBEAT_SECONDS=60)
    pods.kill(first, "pod1")
    said = pods.run("pod1", *container, VGGT_COMMAND="echo process $PPID", VGGT_HEARTBEAT_SECONDS=60)
    assert said.returncode == 0
    assert "Pod pod1, process 1 on" in said.stdout and "has gone: taking over its run" in said.stdout
    assert "\nprocess 1\n" in said.stdout


@pytest.mark.workflow
def test_a_snakemake_of_ones_own_whose_pod_vanished_is_unlocked(pods):
    """It has no config.yaml of `compare`; its folder is all that is known."""
    rule = "rule all:\n    output: 'done'\n    shell: 'touch begun; until [ -e go ]; do sleep 0.1; done; touch done'\n"
    (pods.root / "Snakefile").write_text(rule)
    flags = f"--snakefile {pods.root / 'Snakefile'} --cores 1 --rerun-incomplete --quiet all"
    command = f"{sys.executable} -P -m snakemake {flags}"
    run = pods.volume / "results" / "default"
    first = pods.start("pod1", VGGT_COMMAND=command)
    wait_until((run / "begun").exists, first)
    pods.kill(first, "pod1")
    assert list((run / ".snakemake" / "locks").iterdir())
    (run / "go").touch()
    second = pods.run("pod1", VGGT_COMMAND=command)
    assert second.returncode == 0, second.stdout
    assert "The last run was killed: unlocking it" in second.stdout and (run / "done").exists()


@pytest.mark.workflow
def test_a_comparison_whose_pod_vanished_goes_on_in_another_pod(pods):
    write_known_scenes(pods.volume / "rooms", "court")
    # A copy, as an image holds one: an edit of the sources between two runs would be a reason to repeat steps.
    for folder in ("vggt_quant", "workflow", "config"):
        shutil.copytree(ROOT / folder, pods.root / "code" / folder)
    settings = {
        "PYTHONPATH": pods.root / "code",
        "VGGT_MODEL": "nano-random",
        "VGGT_IMAGES": "rooms",
        "VGGT_MAX_IMAGES": 2,
        "VGGT_VARIANTS": "fp32",
        "VGGT_RUN_ARGS": "--device cpu --calibration-folder none",
        **SECRETS,
    }
    run = pods.volume / "results" / "default"
    first = pods.start("pod1", **settings)
    wait_until((run / "logs" / "images.log").exists, first)  # begun when `model` was on record
    pods.kill(first, "pod1")
    assert list((run / ".snakemake" / "locks").iterdir())
    # `compare` unlocks what a killed run left on the same machine, and refuses another machine's.
    (run / ".vggt-quant.lock").write_text("another-host\n")

    second = pods.run("pod2", **settings)
    assert second.returncode == 0, second.stdout
    assert re.search("Pod pod1, .* has gone: taking over.*The last run was killed: unlocking it", second.stdout, re.S)
    assert "rule images:" in second.stdout and "rule model:" not in second.stdout, "what was done is not done again"
    assert f"Report: {run / 'comparison_summary.txt'}\n" in second.stdout
    assert list((pods.volume / "checkpoints").rglob("*.safetensors"))

    third = pods.run("pod3", **settings)
    assert third.returncode == 0 and "Nothing to be done" in third.stdout
    for secret in SECRETS.values():
        assert secret not in second.stdout
        assert not pods.files_with(secret)
