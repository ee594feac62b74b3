"""runpod/start.sh: what a pod runs. Real script, real processes and signals, RunPod's interface on 127.0.0.1."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pods import ROOT, SECRETS, START, Pods, RunPod, wait_until
from processes import install_driver

HAS_MOUNTS = not subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
needs_mounts = pytest.mark.skipif(not HAS_MOUNTS, reason="this user may not mount file systems (unshare -m)")


@pytest.fixture
def pods(tmp_path):
    pods = Pods(tmp_path)
    yield pods
    pods.end_all()


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    command = [shellcheck, "--external-sources", "--check-sourced", "--source-path", START.parent, START]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_volume_gets_its_folders_and_what_is_there_stays(pods):
    kept = pods.volume / "hf" / "weights"
    kept.parent.mkdir()
    kept.write_text("weights")
    before = kept.stat()
    said = pods.run("pod1", VGGT_RUN="no")
    assert said.returncode == 0
    assert "nothing is run" in said.stdout
    assert {path.name for path in pods.volume.iterdir()} == {"hf", "checkpoints", "results", "logs", ".snakemake"}
    assert (kept.read_text(), kept.stat().st_mtime_ns) == ("weights", before.st_mtime_ns)


def test_the_run_finds_caches_on_the_volume_compiled_kernels_on_local_disk_and_the_number_of_gpus(pods):
    path = install_driver(pods.root / "driver")
    names = ("HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "PYTHONUNBUFFERED", "VGGT_GPUS", "PWD")
    command = "; ".join(f"echo {name}=${name}" for name in names)
    said = pods.run("pod1", VGGT_COMMAND=command, PATH=path, VGGT_RUN_NAME="mine", TMPDIR="/tmp").stdout
    found = dict(re.findall(rf"^({'|'.join(names)})=(.*)$", said, re.M))
    assert found["HF_HOME"] == str(pods.volume / "hf")
    assert found["PWD"] == str(pods.volume / "results" / "mine")
    assert found["TRITON_CACHE_DIR"].startswith("/tmp/") and found["TORCHINDUCTOR_CACHE_DIR"].startswith("/tmp/")
    assert (found["PYTHONUNBUFFERED"], found["VGGT_GPUS"]) == ("1", "2")


def test_a_missing_volume_is_named_and_not_made(pods):
    pods.volume.rmdir()
    said = pods.run("pod1", VGGT_COMMAND="echo ran")
    assert said.returncode == 1
    assert f"There is no folder {pods.volume}: attach a volume" in said.stdout
    assert "ran" not in said.stdout and not pods.volume.exists()


@needs_mounts
@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ("mount -t tmpfs -o ro none $V", "is read-only: attach the volume so that this pod may write to it."),
        (
            "mount -t tmpfs -o size=512k none $V && echo kept >$V/file && head -c 300k /dev/zero >$V/data",
            "is full: delete what you no longer need, or enlarge the volume.",
        ),
    ],
)
def test_a_volume_that_cannot_be_written_to_is_one_sentence_and_no_damage(pods, mount, sentence):
    inside = f'V={pods.volume}; {mount} || exit 9; find $V -type f; "$@"; code=$?; find $V -type f; exit $code'
    said = pods.run("pod1", "unshare", "-m", "sh", "-c", inside, "sh", VGGT_COMMAND="echo ran")
    before, message, after = re.split(r"^(\[pod.*)\n", said.stdout, flags=re.M)
    assert said.returncode == 1
    assert message.endswith(f"{pods.volume} {sentence}")
    assert before == after


def test_hooks_run_before_and_after_the_services_and_a_failing_one_does_no_harm(pods):
    (pods.root / "pre_start.sh").write_text('echo "pre: $(ls $VGGT_WORKSPACE | wc -l) folders"; exit 3')
    (pods.root / "post_start.sh").write_text('echo "post: $(ls $VGGT_WORKSPACE | wc -l) folders"; kill -9 $$')
    said = pods.run("pod1", VGGT_COMMAND="echo ran")
    assert said.returncode == 0
    assert re.search(
        r"pre: 0 .*failed with exit code 3.*post: 4 .*failed with exit code 137.*\nran\n", said.stdout, re.S
    )


def test_the_owner_of_the_public_key_is_let_in_once(pods):
    pods.program("sshd", '#!/bin/sh\necho "sshd runs as $0"\n')
    pods.program("ssh-keygen", "#!/bin/sh\n")
    keys = pods.home / ".ssh" / "authorized_keys"
    keys.parent.mkdir()
    keys.write_text("ssh-rsa old one")  # without an end of line
    for _ in range(2):
        said = pods.run("pod1", PUBLIC_KEY="ssh-ed25519 AAAA me@here\nssh-rsa BBBB\n", VGGT_RUN="no").stdout
        assert f"sshd runs as {pods.bin / 'sshd'}" in said
    assert keys.read_text() == "ssh-rsa old one\nssh-ed25519 AAAA me@here\nssh-rsa BBBB\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    login = f". {pods.home / 'profile.sh'}; echo $HF_HOME"
    assert subprocess.run(["bash", "-c", login], capture_output=True, text=True).stdout == f"{pods.volume / 'hf'}\n"


def test_the_exit_code_is_kept_and_all_is_in_the_log_and_on_stdout(pods):
    said = pods.run("pod1", VGGT_COMMAND="echo out; echo err >&2; exit 7")
    assert said.returncode == 7
    assert "\nout\nerr\n" in said.stdout and "failed with exit code 7" in said.stdout
    (log,) = (pods.volume / "logs").iterdir()
    assert said.stdout.endswith(log.read_text())
    assert re.fullmatch(r"default_\d{8}T\d{6}Z_pod1.log", log.name)


def test_arguments_are_split_at_blanks_but_not_in_quotes_and_nothing_is_expanded(pods):
    said = pods.run("pod1", VGGT_RUN_ARGS="--max-scenes 2 --image-mode 'pa $HOME *d'")
    assert said.returncode == 2
    assert "argument --image-mode: invalid choice: 'pa $HOME *d'" in said.stdout
    said = pods.run("pod1", VGGT_RUN_ARGS="--image-mode 'pad")
    assert said.returncode == 2
    assert "VGGT_RUN_ARGS has a quote without its partner: --image-mode 'pad" in said.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VGGT_RUN_NAME", "../up"),
        ("VGGT_RUN", "maybe"),
        ("VGGT_WHEN_BUSY", "run"),
        ("VGGT_HEARTBEAT_SECONDS", "0"),
        ("VGGT_AUTO_STOP", "now"),
        ("VGGT_AUTO_STOP_ON_FAILURE", "1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_runs(pods, name, value):
    said = pods.run("pod1", VGGT_COMMAND="echo ran", **{name: value})
    assert said.returncode == 2
    assert f"{name} is '{value}'; it takes " in said.stdout
    assert "\nran\n" not in said.stdout
    assert not list((pods.volume / "results").iterdir())


def test_after_the_run_the_pod_sleeps_until_it_is_told_to_stop(pods):
    settings = {"VGGT_COMMAND": "exit 3", "VGGT_LAST_COMMAND": ""}
    pod = pods.start("pod1", **settings)
    wait_until(lambda: any("sleep\0infinity" in words for words in command_lines(pods)), pod)
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=4)
    assert "failed with exit code 3" in said
    assert pod.returncode == 143


def command_lines(pods):
    return [Path(f"/proc/{process}/cmdline").read_text() for process in pods.processes()]


@pytest.mark.parametrize(
    ("on_term", "seconds"), [("trap 'echo ending; exit' TERM", (0, 3)), ("trap 'echo ignored' TERM", (1, 4))]
)
def test_a_stopped_pod_ends_its_run_releases_the_lease_and_ends_in_time(pods, on_term, seconds):
    """RunPod kills after five seconds."""
    command = f"{on_term}; touch begun; while true; do sleep 0.1; done"
    pod = pods.start("pod1", VGGT_COMMAND=command, VGGT_STOP_SECONDS="1")
    wait_until((pods.volume / "results" / "default" / "begun").exists, pod)
    begun = time.monotonic()
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=30)
    assert seconds[0] <= time.monotonic() - begun < seconds[1]
    assert pod.returncode == 143
    assert ("ending" if seconds[0] == 0 else "ignored") in said
    wait_until(lambda: not list(pods.processes()), seconds=3)  # the keeper of the lease sleeps for a last second
    assert not list(pods.volume.glob(".snakemake/leases/default/*/heartbeat"))


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
        ({"VGGT_AUTO_STOP": "terminate", "RUNPOD_VOLUME_ID": "volume1"}, "terminate"),
        ({"VGGT_AUTO_STOP": "terminate"}, "stop"),  # terminating would delete the results
        ({"VGGT_AUTO_STOP": "stop", "VGGT_AUTO_STOP_ON_FAILURE": "no"}, None),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_WORKSPACE": "/nowhere"}, "stop"),
        ({"VGGT_AUTO_STOP": "stop", "VGGT_RUN": "no"}, None),
        ({"VGGT_AUTO_STOP": "no"}, None),
        ({}, None),
    ],
)
def test_what_becomes_of_the_pod_after_a_failed_run(pods, settings, action):
    with RunPod() as runpod:
        pods.run("pod1", VGGT_COMMAND="exit 1", VGGT_RUNPOD_URL=runpod.url, **SECRETS, **settings)
    assert [body["action"] for _, _, body in runpod.requests] == ([action] if action else [])


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


@pytest.mark.parametrize("name", ["VGGT_STOP_SECONDS", "VGGT_AUTO_STOP_RETRY_SECONDS"])
def test_a_time_that_is_no_number_is_refused_and_the_pod_still_stops(pods, name):
    with RunPod(500) as runpod:
        settings = {"VGGT_AUTO_STOP": "Stop", "VGGT_RUNPOD_URL": runpod.url, name: "abc"}
        said = pods.run("pod1", VGGT_COMMAND="echo ran", **settings, **SECRETS).stdout
    assert f"{name} is 'abc'; it takes" in said and "\nran\n" not in said
    assert "RunPod will stop this pod." in said and len(runpod.requests) == 2


def test_without_a_key_runpodctl_is_asked_in_the_words_of_its_version(pods):
    pods.program("runpodctl", f'#!/bin/sh\necho "$@" >>{pods.root}/asked; [ "$1" = remove ]\n')
    pods.run("pod1", VGGT_COMMAND="true", VGGT_AUTO_STOP="terminate", RUNPOD_VOLUME_ID="volume1")
    assert (pods.root / "asked").read_text() == "pod delete pod1\nremove pod pod1\n"


def test_a_pod_that_cannot_be_stopped_says_so_before_the_run(pods):
    said = pods.run("pod1", VGGT_COMMAND="echo ran", VGGT_AUTO_STOP="stop", PATH="/usr/bin:/bin").stdout
    assert re.search(r"will not work: there is neither RUNPOD_API_KEY nor runpodctl.*\nran\n", said, re.S)


def test_every_setting_is_in_the_guide():
    guide = ROOT / "runpod" / "README.md"
    read = set(re.findall(r"\$\{(VGGT_\w+)", "".join(path.read_text() for path in START.parent.rglob("*.sh"))))
    assert read <= set(re.findall(r"VGGT_\w+", guide.read_text()))
