"""runpod/start.sh: what a pod runs. Real script, real processes and signals, RunPod's interface on 127.0.0.1."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pods import IMPOSSIBLE, SECRETS, START, Pods, RunPod, wait_until
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
    names += ("VGGT_QUANT_PROFILE",)
    command = "; ".join(f"echo {name}=${name}" for name in names)
    said = pods.run("pod1", VGGT_COMMAND=command, PATH=path, VGGT_RUN_NAME="mine", TMPDIR="/tmp").stdout
    found = dict(re.findall(rf"^({'|'.join(names)})=(.*)$", said, re.M))
    assert found["HF_HOME"] == str(pods.volume / "hf")
    assert found["PWD"] == str(pods.volume / "results" / "mine")
    assert found["TRITON_CACHE_DIR"].startswith("/tmp/") and found["TORCHINDUCTOR_CACHE_DIR"].startswith("/tmp/")
    assert (found["PYTHONUNBUFFERED"], found["VGGT_GPUS"], found["VGGT_QUANT_PROFILE"]) == ("1", "2", "runpod")


def test_a_missing_volume_is_named_and_not_made(pods):
    pods.volume.rmdir()
    said = pods.run("pod1", VGGT_COMMAND="echo ran")
    assert said.returncode == 1
    assert f"There is no folder {pods.volume}: attach a volume" in said.stdout
    assert "ran" not in said.stdout and not pods.volume.exists()


ON_A_FULL_VOLUME = "mount -t tmpfs -o size=512k none $V && echo kept >$V/file && cat /dev/zero >$V/data"


def on_mount(pods, mount, **settings):
    """Run a pod on a file system that only it sees; the files there, before and after, are printed by `find`."""
    inside = f'V={pods.volume}; {mount} 2>/dev/null; find $V -type f; "$@"; code=$?; find $V -type f; exit $code'
    return pods.run("pod1", "unshare", "-m", "sh", "-c", inside, "sh", **settings)


@needs_mounts
@pytest.mark.parametrize(
    ("mount", "sentence", "files"),
    [
        ("mount -t tmpfs -o ro none $V", "is read-only: attach the volume so that this pod may write to it.", 0),
        (ON_A_FULL_VOLUME, "is full: delete what you no longer need, or enlarge the volume.", 2),
    ],
)
def test_a_volume_that_cannot_be_written_to_is_one_sentence_and_no_damage(pods, mount, sentence, files):
    said = on_mount(pods, mount, VGGT_COMMAND="echo ran")
    before, *messages, after = re.split(r"^(\[pod.*\n)+", said.stdout, flags=re.M)
    assert said.returncode == 1
    assert f"{pods.volume} {sentence}" in messages[-1]
    assert before == after and len(before.splitlines()) == files
    assert "\nran\n" not in said.stdout


@needs_mounts
def test_a_volume_with_space_for_the_log_alone_gets_the_reason_into_the_log(pods):
    mount = "mount -t tmpfs -o size=512k none $V"
    # The log is written beside the script, so it may be some moments late.
    look = f"for i in $(seq 50); do grep 'is full' {pods.volume}/logs/* && break; sleep 0.1; done"
    (pods.home / "post").write_text(look)
    said = on_mount(pods, mount, VGGT_COMMAND="echo ran", VGGT_LAST_COMMAND=f"sh {pods.home / 'post'}")
    assert said.returncode == 1 and said.stdout.count("is full: delete") == 2


@needs_mounts
def test_a_pod_that_runs_nothing_opens_ssh_and_lives_on_though_its_volume_is_full(pods):
    pods.program("sshd", "#!/bin/sh\necho sshd runs\n")
    pods.program("ssh-keygen", "#!/bin/sh\n")
    (pods.root / "pre_start.sh").write_text("echo pre")
    (pods.root / "post_start.sh").write_text("echo post")
    settings = {"PUBLIC_KEY": "ssh-rsa AAAA", "VGGT_RUN": "no", "VGGT_AUTO_STOP": "terminate", **SECRETS}
    with RunPod() as runpod:
        said = on_mount(pods, ON_A_FULL_VOLUME, VGGT_RUNPOD_URL=runpod.url, RUNPOD_VOLUME_ID="volume1", **settings)
    assert re.search(r"\nsshd runs\n.*\npre\n.* is full: .*\npost\n.*nothing is run", said.stdout, re.S)
    assert (said.returncode, runpod.requests) == (0, [])


def test_hooks_run_before_and_after_the_volume_is_touched_and_a_failing_one_does_no_harm(pods):
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
    login = f". {pods.home / 'profile.sh'}; echo $HF_HOME $VGGT_QUANT_PROFILE"
    found = subprocess.run(["bash", "-c", login], capture_output=True, text=True).stdout
    assert found == f"{pods.volume / 'hf'} runpod\n"


def test_the_exit_code_is_kept_and_all_is_in_the_log_and_on_stdout(pods):
    said = pods.run("pod1", VGGT_COMMAND="echo out; echo err >&2; exit 7")
    assert said.returncode == 7
    assert "\nout\nerr\n" in said.stdout and "failed with exit code 7" in said.stdout
    (log,) = (pods.volume / "logs").iterdir()
    assert said.stdout == log.read_text()
    assert re.fullmatch(r"default_\d{8}T\d{6}Z_pod1.log", log.name)


def test_arguments_are_split_at_blanks_but_not_in_quotes_and_nothing_is_expanded(pods):
    said = pods.run("pod1", VGGT_RUN_ARGS="--max-scenes 2 --image-mode 'pa $HOME *d'")
    assert said.returncode == 2
    assert "argument --image-mode: invalid choice: 'pa $HOME *d'" in said.stdout
    assert "Nothing was run" in said.stdout and "next start" not in said.stdout
    said = pods.run("pod1", VGGT_RUN_ARGS="--max-scenes 2\n--image-mode 'pa\nd'\n")
    assert "argument --image-mode: invalid choice: 'pa d'" in said.stdout
    said = pods.run("pod1", VGGT_RUN_ARGS="--image-mode 'pad")
    assert said.returncode == 2
    assert "VGGT_RUN_ARGS has a quote without its partner: --image-mode 'pad" in said.stdout


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_a_setting_that_cannot_be_is_refused_before_anything_runs(pods, name, value):
    said = pods.run("pod1", VGGT_COMMAND="echo ran", **{name: value})
    assert said.returncode == 2
    assert f"{name} is '{value}'; it takes " in said.stdout
    assert "\nran\n" not in said.stdout
    assert not list((pods.volume / "results").iterdir())


@pytest.mark.parametrize("name", ["VGGT_IMAGE", "VGGT_AUTO_STOPP", "VGGT_"])
def test_a_setting_that_nothing_reads_is_refused_before_anything_runs(pods, name):
    said = pods.run("pod1", VGGT_COMMAND="echo ran", **{name: ""})
    assert said.returncode == 2 and f"{name} is no setting of a pod; correct its name" in said.stdout
    assert "\nran\n" not in said.stdout
    assert not list((pods.volume / "results").iterdir())


def test_after_the_run_the_pod_sleeps_until_it_is_told_to_stop(pods):
    settings = {"VGGT_COMMAND": "exit 3", "VGGT_LAST_COMMAND": ""}
    pod = pods.start("pod1", **settings)
    wait_until(lambda: any("sleep\0infinity" in words for words in pods.command_lines()), pod)
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=4)
    assert "failed with exit code 3" in said
    assert pod.returncode == 143


@pytest.mark.parametrize(
    ("on_term", "seconds"), [("trap 'echo ending; exit' TERM", (0, 3)), ("trap 'echo ignored' TERM", (3, 4))]
)
def test_a_stopped_pod_ends_its_run_releases_the_lease_and_ends_in_time(pods, on_term, seconds):
    """RunPod is said to kill after five seconds; one is kept free for a slow volume."""
    pod = pods.start("pod1", VGGT_COMMAND=f"{on_term}; touch begun; while true; do sleep 0.1; done")
    wait_until((pods.volume / "results" / "default" / "begun").exists, pod)
    begun = time.monotonic()
    pod.send_signal(signal.SIGTERM)
    said, _ = pod.communicate(timeout=30)
    assert seconds[0] <= time.monotonic() - begun < seconds[1]
    assert pod.returncode == 143
    assert ("ending" if seconds[0] == 0 else "ignored") in said
    wait_until(lambda: not list(pods.processes()), seconds=3)  # the keeper of the lease sleeps for a last second
    assert not list(pods.volume.glob(".snakemake/leases/default/*/heartbeat"))


def test_a_pod_whose_gpus_are_paid_for_does_not_take_the_processor_unless_told_to(pods):
    settings = {"RUNPOD_GPU_COUNT": "1", "CUDA_VISIBLE_DEVICES": "", "VGGT_IMAGES": "/nowhere"}
    said = pods.run("pod1", **settings)
    assert said.returncode == 2
    assert "device is cuda, but nvidia-smi finds no GPU here" in said.stdout
    assert "Nothing was run" in said.stdout and "next start" not in said.stdout
    for cpu in ({"VGGT_RUN_ARGS": "--device cpu"}, {"RUNPOD_GPU_COUNT": "0"}):
        assert "There is no folder /nowhere" in pods.run("pod1", **settings | cpu).stdout


def test_the_comparison_takes_the_workflow_profile_that_the_environment_names(pods):
    said = pods.run("pod1", VGGT_QUANT_PROFILE="/nowhere", VGGT_RUN_ARGS="--dry-run")
    assert said.returncode == 2 and "There is no workflow profile /nowhere" in said.stdout


def test_the_older_variable_for_variants_is_taken_and_pointed_out(pods):
    settings = {"VGGT_RUN_ARGS": "--device cpu"}
    said = pods.run("pod1", VGGT_METHODS="bf16 int5", **settings)
    assert said.returncode == 2 and "There is no variant 'int5'" in said.stdout
    assert said.stdout.count("VGGT_METHODS is the older spelling of VGGT_VARIANTS.") == 1
    today = pods.run("pod1", VGGT_VARIANTS="int6", **settings)
    assert "There is no variant 'int6'" in today.stdout and "older spelling" not in today.stdout
