"""`fetch model` over real HTTP: plain files that load, resumed, checked, and explained when it fails."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import namedtuple

import pytest
from hub_server import COMMIT, HubServer, Repo, closed_endpoint
from nano_model import CONFIG, same, write_nano, write_shards
from processes import COMMAND
from test_hub import point_hub_at

import vggt_quant
from vggt_quant.cli import main as cli
from vggt_quant.data.fetch.download import CHUNK_BYTES

MODEL = "someone/nano"
WEIGHTS = "model.safetensors"
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def hub(tmp_path, monkeypatch, content):
    """A hub that offers the nano model, and an empty cache."""
    with HubServer() as server:
        server.repos[MODEL] = Repo({"config.json": CONFIG, WEIGHTS: content})
        point_hub_at(server.endpoint, tmp_path / "hub", monkeypatch)
        yield server


@pytest.fixture
def fetch(tmp_path, capsys):
    """Run the command; give its exit code, stdout and stderr."""

    def run(repo=MODEL, *flags):
        code = cli.main(["fetch", "model", repo, "--to", str(tmp_path / "to"), *flags])
        return code, *capsys.readouterr()

    return run


def assert_complete(to, content, state):
    assert {path.name for path in to.iterdir()} == {"nano"}
    assert {path.name for path in (to / "nano").iterdir()} == {"config.json", WEIGHTS, "fetched.json"}
    assert (to / "nano" / WEIGHTS).read_bytes() == content
    assert same(vggt_quant.load(to / "nano").state_dict(), state)


def assert_failed(to, outcome, *words):
    """Exit code 2, one sentence at the end, and no folder that looks finished."""
    code, _, error = outcome
    assert code == 2
    assert error.splitlines()[-1].startswith("vggt-quant: fetch: ")
    assert "Traceback" not in error
    assert all(word in error.splitlines()[-1] for word in words), error
    assert not (to / "nano").exists()


def test_a_fetched_model_is_plain_files_that_load(hub, fetch, tmp_path, content, state):
    code, said, _ = fetch()
    assert (code, said) == (0, f"{tmp_path / 'to' / 'nano'} is complete ({MODEL}, commit {COMMIT}).\n")
    assert_complete(tmp_path / "to", content, state)
    assert json.loads((tmp_path / "to" / "nano" / "fetched.json").read_text()) == {
        **{"repo": MODEL, "revision": "main", "commit": COMMIT, "endpoint": hub.endpoint},
        "files": {"config.json": len(CONFIG), WEIGHTS: len(content)},
    }


def test_a_second_call_asks_no_server_and_says_so(hub, fetch):
    fetch()
    hub.requests.clear()
    code, said, error = fetch()
    assert (code, error, hub.requests) == (0, "", [])
    assert said.endswith(f"({MODEL}, commit {COMMIT}); nothing was fetched.\n")
    assert fetch(MODEL, "--revision", COMMIT)[0] == 0
    assert hub.requests == []


def test_another_revision_or_model_does_not_pass_for_the_one_that_is_there(hub, fetch, tmp_path):
    fetch()
    for wish in ((MODEL, "--revision", "v2"), ("other/nano",)):
        code, _, error = fetch(*wish)
        assert code == 2
        assert f"{tmp_path / 'to' / 'nano'} holds {MODEL} at revision main, not {wish[0]}" in error


def test_a_model_of_shards_arrives_with_all_of_them(hub, fetch, tmp_path, content, state):
    folder = write_nano(tmp_path / "shards", content)
    write_shards(folder, state)
    hub.repos[MODEL].files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert fetch()[0] == 0
    assert same(vggt_quant.load(tmp_path / "to" / "nano").state_dict(), state)


def test_safetensors_come_before_pickled_weights(hub, fetch, tmp_path):
    hub.repos[MODEL].files["model.pt"] = b"pickled"
    assert fetch()[0] == 0
    assert not (tmp_path / "to" / "nano" / "model.pt").exists()


def test_a_cut_connection_is_resumed(hub, fetch, tmp_path, content, state):
    hub.repos[MODEL].cuts[WEIGHTS] = [2 * CHUNK_BYTES]
    assert fetch()[0] == 0
    assert hub.downloads(WEIGHTS) == [None, f"bytes={2 * CHUNK_BYTES}-"]
    assert_complete(tmp_path / "to", content, state)


def test_a_broken_call_is_continued_by_the_next_one(hub, fetch, tmp_path, content, state):
    hub.repos[MODEL].cuts[WEIGHTS] = [2 * CHUNK_BYTES] + [0] * 9
    assert_failed(tmp_path / "to", fetch(), "what has arrived is kept", "HF_ENDPOINT")
    hub.repos[MODEL].cuts.clear()
    hub.requests.clear()
    assert fetch()[0] == 0
    assert hub.downloads(WEIGHTS) == [f"bytes={2 * CHUNK_BYTES}-"]
    assert_complete(tmp_path / "to", content, state)


def test_a_killed_call_is_continued_by_the_next_one(hub, fetch, tmp_path, content, state):
    hub.repos[MODEL].cuts[WEIGHTS] = [2 * CHUNK_BYTES] + [0] * 9
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [*COMMAND, "fetch", "model", MODEL, "--to", str(tmp_path / "to")]
    piece = tmp_path / "to" / "nano.incomplete" / COMMIT / f"{WEIGHTS}.incomplete"
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        end = time.monotonic() + 60
        while not (piece.exists() and piece.stat().st_size == 2 * CHUNK_BYTES):
            assert time.monotonic() < end, "nothing arrived"
            os.sched_yield()
        child.send_signal(signal.SIGKILL)  # In the pause before the next try.
    assert not (tmp_path / "to" / "nano").exists()
    hub.repos[MODEL].cuts.clear()
    hub.requests.clear()
    assert fetch()[0] == 0
    assert hub.downloads(WEIGHTS) == [f"bytes={2 * CHUNK_BYTES}-"]
    assert_complete(tmp_path / "to", content, state)


def test_damaged_weights_are_noticed_by_their_sha256_and_removed(hub, fetch, tmp_path, content, state):
    hub.repos[MODEL].damaged.add(WEIGHTS)
    assert_failed(tmp_path / "to", fetch(), WEIGHTS, "arrives damaged", "sha256")
    assert len(hub.downloads(WEIGHTS)) == 2
    hub.repos[MODEL].damaged.clear()
    assert fetch()[0] == 0
    assert_complete(tmp_path / "to", content, state)


def test_weights_of_another_length_than_announced_are_damaged(hub, fetch, tmp_path):
    hub.repos[MODEL].announced_sizes[WEIGHTS] = len(hub.repos[MODEL].files[WEIGHTS]) + 1
    assert_failed(tmp_path / "to", fetch(), "arrives damaged", "the hub announced")


@pytest.mark.parametrize(
    ("status", "error_code", "message"),
    [
        (401, "GatedRepo", "model is gated; ask for access at"),
        (404, "RepoNotFound", "no such model, or it is private"),
        (401, "bad token", "the token may be wrong"),
    ],
)
def test_a_refusal_of_the_hub_is_explained(hub, fetch, tmp_path, status, error_code, message):
    hub.repos[MODEL].status, hub.repos[MODEL].error_code = status, error_code
    assert_failed(tmp_path / "to", fetch(), f"of {MODEL!r}", message)


def test_a_wrong_revision_is_named(hub, fetch, tmp_path):
    assert_failed(tmp_path / "to", fetch(MODEL, "--revision", "v9"), "no such revision")


def test_a_model_that_is_no_vggt_is_refused_before_its_weights_are_sent(hub, fetch, tmp_path):
    hub.repos[MODEL].files["config.json"] = b'{"embed_dim": 7}'
    assert_failed(tmp_path / "to", fetch(), "does not describe a VGGT")
    assert hub.downloads(WEIGHTS) == []


def test_a_model_without_weights_is_named(hub, fetch, tmp_path):
    del hub.repos[MODEL].files[WEIGHTS]
    assert_failed(tmp_path / "to", fetch(), f"{MODEL!r} holds no weights")


@pytest.mark.parametrize("name", ["nano", "some/where/nano", "someone/..", "../nano"])
def test_a_name_that_no_hub_model_has_is_refused(hub, fetch, tmp_path, name):
    assert_failed(tmp_path / "to", fetch(name), f"{name!r} is no hub model; write it as owner/name")
    assert not (tmp_path / "to").exists()


def test_a_hub_that_does_not_answer_is_named(hub, fetch, tmp_path, monkeypatch):
    point_hub_at(closed_endpoint(), tmp_path / "hub", monkeypatch)
    assert_failed(tmp_path / "to", fetch(), "cannot be reached", "check the network and HF_ENDPOINT")


def test_offline_mode_is_named(hub, fetch, tmp_path, content):
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [*COMMAND, "fetch", "model", MODEL, "--to", str(tmp_path / "to")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert_failed(tmp_path / "to", (run.returncode, run.stdout, run.stderr), "offline mode forbids a download")
    assert hub.requests == []


def test_weights_larger_than_the_disk_are_not_begun(hub, fetch, tmp_path, monkeypatch):
    room = len(CONFIG) + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: USAGE(room, 0, room))
    assert_failed(tmp_path / "to", fetch(), f"{WEIGHTS} needs 0.01 GB", "choose another --to")
