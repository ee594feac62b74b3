"""runpod/start.sh: what becomes of the pod at the end. Real script and signals, RunPod's interface on 127.0.0.1."""

import re
import signal
import subprocess
import time

import pytest
from pods import SECRETS, Pods, RunPod, mounted_volume, wait_until


@pytest.fixture
def pods(tmp_path):
    """On a mounted volume, without which no pod is stopped."""
    with mounted_volume() as volume:
        if volume is None:
            pytest.skip("/dev/shm is no mounted file system that this user may write to")
        pods = Pods(tmp_path, volume)
        pods.pretend_disk()
        yield pods
        pods.end_all()


def test_the_pod_is_stopped_after_its_run_and_no_secret_is_left_anywhere(pods):
    """RunPod is busy at first; its answer holds the pod's environment, and `ps` would show a key on a command line."""
    with RunPod(500, 429) as runpod:
        settings = {"VGGT_AUTO_STOP": "stop", "VGGT_RUNPOD_URL": runpod.url, "PUBLIC_KEY": "ssh-rsa AAAA", **SECRETS}
        said = pods.run("pod1", VGGT_COMMAND="echo ran; echo $RUNPOD_API_KEY; echo $HF_TOKEN | wc -c", **settings)
    assert said.returncode == 0
    assert re.search(r"\nran\n\n18\n.*Asking RunPod to stop pod pod1.*RunPod will stop this pod", said.stdout, re.S)
    key = f"Bearer {SECRETS['RUNPOD_API_KEY']}"
    assert runpod.requests == [("/v2/pods/pod1/action", key, {"action": "stop"})] * 3
    for secret in SECRETS.values():
        assert secret not in said.stdout
        assert not pods.files_with(secret)
        assert not [words for words in runpod.command_lines if secret in words]
    assert any("curl" in words for words in runpod.command_lines)


@pytest.mark.parametrize(
    ("settings", "action"),
    [
        ({"VGGT_AUTO_STOP": "Terminate", "RUNPOD_VOLUME_ID": "volume1"}, "terminate"),
        ({"VGGT_AUTO_STOP": "terminate"}, "stop"),  # terminating would delete the results
        ({"VGGT_AUTO_STOP": "now"}, "stop"),  # to pay for ever would be worse
        ({"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_ON_FAILURE": "no"}, None),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_ON_FAILURE": "perhaps"}, "stop"),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_WORKSPACE": "/nowhere"}, "stop"),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_RUN": "no"}, None),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_RUN": "NO", "VGGT_RUN_NAME": "../up"}, None),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_MAX_HOUR": "1"}, "stop"),
        ({"VGGT_AUTO_STOP": "no"}, None),
        ({}, None),
    ],
)
def test_what_becomes_of_the_pod_after_a_failed_run(pods, settings, action):
    with RunPod() as runpod:
        pods.run("pod1", VGGT_COMMAND="exit 1", VGGT_RUNPOD_URL=runpod.url, **SECRETS, **settings)
    assert [body["action"] for _, _, body in runpod.requests] == ([action] if action else [])


def test_a_word_that_auto_stop_does_not_know_stops_the_pod_and_is_said_in_the_log(pods):
    with RunPod() as runpod:
        said = pods.run("pod1", VGGT_COMMAND="echo ran", VGGT_AUTO_STOP="off", VGGT_RUNPOD_URL=runpod.url, **SECRETS)
    assert re.search(r"WARNING: VGGT_AUTO_STOP is 'off', .*: the pod will be stopped\.\n.*\nran\n", said.stdout, re.S)
    (log,) = (pods.volume / "logs").iterdir()
    assert said.stdout == log.read_text()


def test_a_run_whose_results_would_go_with_the_pod_is_refused_and_said_long_enough_to_be_read(tmp_path):
    if subprocess.run(["stat", "-c", "%m", tmp_path], capture_output=True, text=True).stdout != "/\n":
        pytest.skip(f"{tmp_path} is on a mounted file system itself")
    pods = Pods(tmp_path)
    pods.pretend_disk()
    settings = {"VGGT_AUTO_STOP": "terminate", "RUNPOD_VOLUME_ID": "volume1", "VGGT_NO_LOG_SECONDS": 2}
    begun = time.monotonic()
    with RunPod() as runpod:
        said = pods.run("pod1", VGGT_COMMAND="echo ran", VGGT_RUNPOD_URL=runpod.url, **SECRETS, **settings)
    assert time.monotonic() - begun > 2
    sentence = (
        f"{pods.volume} is no mounted volume (ext2/ext3), so VGGT_AUTO_STOP=terminate would delete the results: attach"
    )
    assert re.search(rf"{re.escape(sentence)}.*\n.*waits 2 s, .*\n.*Asking RunPod to terminate", said.stdout)
    assert said.returncode == 1 and len(runpod.requests) == 1
    assert "\nran\n" not in said.stdout and not list((pods.volume / "results").iterdir())
    said = pods.run("pod1", VGGT_COMMAND="echo ran")
    assert re.search(r"is no mounted volume \(.*\): what is written there is lost.*\nran\n", said.stdout, re.S)


def test_where_no_log_can_be_kept_the_reason_stands_for_a_while_before_the_pod_stops(pods):
    settings = {"VGGT_AUTO_STOP": "stop", "VGGT_WORKSPACE": "/nowhere", "VGGT_NO_LOG_SECONDS": 2, **SECRETS}
    begun = time.monotonic()
    with RunPod() as runpod:
        said = pods.run("pod1", VGGT_RUNPOD_URL=runpod.url, **settings).stdout
    assert time.monotonic() - begun > 2
    assert re.search(r"There is no folder /nowhere.*\n.*waits 2 s, .*\n.*Asking RunPod to stop", said)


@pytest.mark.parametrize("hangs", ["pre_start.sh", "post_start.sh", "command", "lease"])
def test_what_hangs_is_ended_after_the_hours_that_were_given_and_the_pod_stops(pods, hangs):
    if hangs.endswith(".sh"):
        (pods.root / hangs).write_text("touch ~/begun; sleep 100")
    elif hangs == "lease":
        other = pods.start("other", VGGT_COMMAND="touch ~/begun; sleep 100")
        wait_until((pods.home / "begun").exists, other)
    with RunPod() as runpod:
        settings = {"VGGT_MAX_HOURS": "0.0005", "VGGT_AUTO_STOP": "stop", "VGGT_RUNPOD_URL": runpod.url, **SECRETS}
        said = pods.run("pod1", VGGT_COMMAND="touch ~/begun; sleep 100", **settings)
    assert (pods.home / "begun").exists()
    assert said.returncode == 124 and len(runpod.requests) == 1
    assert "VGGT_MAX_HOURS=0.0005 is over: ending what is at work" in said.stdout
    held = list(pods.volume.glob(".snakemake/leases/default/*/heartbeat"))
    assert len(held) == (hangs == "lease"), "only the other pod's lease stays"
    assert not list(pods.processes("RUNPOD_POD_ID=pod1"))


def test_a_pod_that_sleeps_after_its_hours_can_be_stopped(pods):
    settings = {"VGGT_MAX_HOURS": "0.0002", "VGGT_LAST_COMMAND": ""}
    pod = pods.start("pod1", VGGT_COMMAND="sleep 100", **settings)
    wait_until(lambda: any("sleep\0infinity" in words for words in pods.command_lines()), pod)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=3) == 143


def test_a_run_that_ends_in_its_hours_leaves_no_clock_behind(pods):
    assert pods.run("pod1", VGGT_COMMAND="true").returncode == 0
    wait_until(lambda: not list(pods.processes()), seconds=3)


def test_a_pod_that_may_not_stop_itself_says_so_and_tries_again(pods):
    with RunPod(401, 409) as runpod:
        settings = {"VGGT_AUTO_STOP": "stop", "VGGT_RUNPOD_URL": runpod.url, "VGGT_AUTO_STOP_RETRY_SECONDS": 0.1}
        said = pods.run("pod1", VGGT_COMMAND="true", **settings, **SECRETS).stdout
    assert re.search(r"did not stop this pod \(.*401\), so it still costs money.*\n.*409.*\n.*will stop", said)


def test_where_the_key_is_refused_runpodctl_is_asked(pods):
    pods.program("runpodctl", f'#!/bin/sh\necho "$@" >>{pods.root}/asked\n')
    with RunPod(403) as runpod:
        settings = {"VGGT_AUTO_STOP": "stop", "VGGT_RUNPOD_URL": runpod.url}
        said = pods.run("pod1", VGGT_COMMAND="true", **settings, **SECRETS).stdout
    assert (pods.root / "asked").read_text() == "pod stop pod1\n" and "RunPod will stop this pod." in said


@pytest.mark.parametrize(
    "name", ["VGGT_STOP_SECONDS", "VGGT_AUTO_STOP_RETRY_SECONDS", "VGGT_NO_LOG_SECONDS", "VGGT_MAX_HOURS"]
)
def test_a_time_that_is_no_number_is_refused_and_the_pod_still_stops(pods, name):
    with RunPod(500) as runpod:
        settings = {"VGGT_AUTO_STOP": "Stop", "VGGT_RUNPOD_URL": runpod.url, name: "1 2"}
        said = pods.run("pod1", VGGT_COMMAND="echo ran", **settings, **SECRETS).stdout
    assert f"{name} is '1 2'; it takes" in said and "\nran\n" not in said
    assert "RunPod will stop this pod." in said and len(runpod.requests) == 2


def test_without_a_key_runpodctl_is_asked_in_the_words_of_its_version(pods):
    pods.program("runpodctl", f'#!/bin/sh\necho "$@" >>{pods.root}/asked; [ "$1" = remove ]\n')
    pods.run("pod1", VGGT_COMMAND="true", VGGT_AUTO_STOP="terminate", RUNPOD_VOLUME_ID="volume1")
    assert (pods.root / "asked").read_text() == "pod delete pod1\nremove pod pod1\n"


def test_a_pod_that_cannot_be_stopped_says_so_before_the_run(pods):
    said = pods.run("pod1", VGGT_COMMAND="echo ran", VGGT_AUTO_STOP="stop", PATH=f"{pods.bin}:/usr/bin:/bin").stdout
    assert re.search(r"will not work: there is neither RUNPOD_API_KEY nor runpodctl.*\nran\n", said, re.S)


def test_after_three_lasting_refusals_to_stop_the_pod_is_terminated_if_its_volume_keeps_all(pods):
    settings = {"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_RETRY_SECONDS": 0.1, **SECRETS}
    with RunPod(always={"stop": 409}) as runpod:
        settings |= {"VGGT_RUNPOD_URL": runpod.url, "VGGT_COMMAND": "true"}
        said = pods.run("pod1", RUNPOD_VOLUME_ID="volume1", **settings).stdout
        assert [body["action"] for _, _, body in runpod.requests] == ["stop"] * 3 + ["terminate"]
        assert "it will be terminated, since the network volume keeps all results" in said
        runpod.requests.clear()
        pod = pods.start("pod2", **settings)  # without a network volume it goes on asking
        wait_until(lambda: len(runpod.requests) >= 6, pod)
    assert {body["action"] for _, _, body in runpod.requests} == {"stop"}


def test_a_busy_runpod_is_no_refusal(pods):
    """Three refusals count only one after the other. curl shall not repeat by itself, as it does after 1, 2, 4, 8 s."""
    with RunPod(403, 403, 500, 403, 429, 403) as runpod:
        pods.program("curl", '#!/bin/sh\nPATH=/usr/bin:/bin exec curl "$@" --retry 0\n')
        settings = {"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_RETRY_SECONDS": 0.1, "RUNPOD_VOLUME_ID": "volume1"}
        pods.run("pod1", VGGT_COMMAND="true", VGGT_RUNPOD_URL=runpod.url, **settings, **SECRETS)
    assert [body["action"] for _, _, body in runpod.requests] == ["stop"] * 7


def test_a_pod_that_still_lives_after_runpod_agreed_asks_again(pods):
    settings = {"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_RETRY_SECONDS": 0.2, "VGGT_LAST_COMMAND": "", **SECRETS}
    with RunPod() as runpod:
        pod = pods.start("pod1", VGGT_COMMAND="true", VGGT_RUNPOD_URL=runpod.url, **settings)
        wait_until(lambda: len(runpod.requests) >= 3, pod)
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=4)
    assert pod.returncode == 143 and "still lives 0.2 s after RunPod agreed to stop it" in said


def test_a_pod_that_runs_nothing_says_that_it_costs_money_and_ends_after_hours_that_were_given(pods):
    pods.program("once", "#!/bin/sh\n[ -e ~/slept ] || { touch ~/slept; sleep 100; }\n")
    settings = {"VGGT_RUN": "no", "VGGT_AUTO_STOP": "terminate", "RUNPOD_VOLUME_ID": "volume1", **SECRETS}
    with RunPod() as runpod:
        settings["VGGT_RUNPOD_URL"] = runpod.url
        said = pods.run("pod1", **settings).stdout
        assert "costs money until you end it.\n" in said and not runpod.requests
        settings |= {"VGGT_MAX_HOURS": "0.0008", "VGGT_AUTO_STOP_ON_FAILURE": "no", "VGGT_LAST_COMMAND": "once"}
        said = pods.run("pod1", **settings)
    assert "until you end it, 0.0008 hours at most (VGGT_MAX_HOURS).\n" in said.stdout
    assert said.returncode == 0 and [body["action"] for _, _, body in runpod.requests] == ["terminate"]


def test_a_file_system_in_memory_is_no_volume(pods):
    (pods.bin / "stat").unlink()
    with RunPod() as runpod:
        settings = {"VGGT_AUTO_STOP": "terminate", "RUNPOD_VOLUME_ID": "volume1", "VGGT_RUNPOD_URL": runpod.url}
        said = pods.run("pod1", VGGT_COMMAND="echo ran", **settings, **SECRETS)
    assert said.returncode == 1 and "is no mounted volume (tmpfs), so VGGT_AUTO_STOP=terminate" in said.stdout
    assert "\nran\n" not in said.stdout


@pytest.mark.workflow
def test_other_photos_under_the_name_of_a_run_are_refused_by_the_comparison_and_the_pod_stops(pods):
    run = pods.volume / "results" / "default"
    model = {"VGGT_MODEL": "nano-random"}
    assert pods.run("pod1", VGGT_MAX_IMAGES=2, VGGT_RUN_ARGS="--dry-run", **model).returncode == 0
    (run / ".dry-run.yaml").rename(run / "config.yaml")
    (run / "quantize").mkdir()
    (run / "quantize" / "fp32.json").write_text("{}")
    with RunPod() as runpod:
        settings = {"VGGT_AUTO_STOP": "stop", "VGGT_RUNPOD_URL": runpod.url, **model, **SECRETS}
        said = pods.run("pod2", VGGT_MAX_IMAGES=3, VGGT_MAX_HOURS="0.01", **settings)
    sentence = f"{run} holds results for --max-images 2, not 3: choose another"
    assert re.search(rf"{re.escape(sentence)}.*Nothing was run: the line above.*will stop this pod", said.stdout, re.S)
    assert said.returncode == 2 and (run / "quantize" / "fp32.json").read_text() == "{}"
