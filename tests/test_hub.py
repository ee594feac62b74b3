"""The download road over real HTTP: cached, resumed, checked, and explained when it fails."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, Repo, closed_endpoint
from huggingface_hub import constants
from nano_model import CONFIG, same, write_nano, write_shards

from vggt_quant.model.config import NAMED
from vggt_quant.model.weights.hub import WeightsError
from vggt_quant.model.weights.pretrained import load_pretrained, resolve, weights_sha256

MODEL = "someone/nano"


@pytest.fixture
def folder(tmp_path, content):
    """A local folder that holds the nano model."""
    return write_nano(tmp_path / "nano", content)


def point_hub_at(endpoint, cache, monkeypatch):
    """huggingface_hub reads its environment when it is imported; set what it read."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # its pauses between tries


@pytest.fixture
def hub(tmp_path, monkeypatch, content):
    """A hub that offers the nano model, and an empty cache at tmp_path / "hub"."""
    with HubServer() as server:
        server.repos[MODEL] = Repo({"config.json": CONFIG, "model.safetensors": content})
        point_hub_at(server.endpoint, tmp_path / "hub", monkeypatch)
        yield server


def blobs(cache):
    """The downloaded files of a hub cache that look complete, weights only."""
    return [path for path in cache.glob("models--*/blobs/*") if len(path.name) == 64]


def test_a_hub_model_is_downloaded_once(hub, state):
    source = resolve(MODEL)
    assert (source.kind, source.revision, source.config, source.label) == ("hub", COMMIT, NAMED["nano"], MODEL)
    assert same(load_pretrained(source).state_dict(), state)
    assert weights_sha256(source) == hashlib.sha256(hub.repos[MODEL].files["model.safetensors"]).hexdigest()
    assert resolve(MODEL) == source
    assert len(hub.downloads("model.safetensors")) == 1


def test_a_branch_a_commit_and_a_wrong_revision(hub):
    assert resolve(MODEL, revision="main").revision == COMMIT
    assert resolve(MODEL, revision=COMMIT).revision == COMMIT
    with pytest.raises(WeightsError, match="no such revision"):
        resolve(MODEL, revision="v9")


def test_a_hub_model_of_shards_loads(hub, folder, state):
    write_shards(folder, state)
    hub.repos[MODEL].files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert same(load_pretrained(resolve(MODEL)).state_dict(), state)
    hub.repos["someone/broken"] = Repo({"config.json": CONFIG, **hub.repos[MODEL].files})
    del hub.repos["someone/broken"].files["model-2.safetensors"]
    with pytest.raises(WeightsError, match=r"'someone/broken' lacks model-2\.safetensors"):
        resolve("someone/broken")


def test_a_hub_model_may_be_a_pickled_file_without_a_config(hub):
    hub.repos["someone/pickled"] = Repo({"model.pt": b"some bytes"})
    source = resolve("someone/pickled")
    assert (source.config, source.paths[0].name, source.revision) == (NAMED["vggt-1b"], "model.pt", COMMIT)


def test_a_hub_model_without_weights_is_named(hub):
    hub.repos["someone/empty"] = Repo({"config.json": CONFIG})
    with pytest.raises(WeightsError, match="'someone/empty' holds no weights"):
        resolve("someone/empty")


def test_a_cut_connection_is_resumed_where_it_broke(hub, state):
    chunk = constants.DOWNLOAD_CHUNK_SIZE  # huggingface_hub keeps whole chunks of a broken transfer
    assert chunk + 1000 < len(hub.repos[MODEL].files["model.safetensors"])
    hub.repos[MODEL].cuts["model.safetensors"] = [chunk + 1000, 500]
    assert same(load_pretrained(resolve(MODEL)).state_dict(), state)
    assert hub.downloads("model.safetensors") == [None, f"bytes={chunk}-", f"bytes={chunk}-"]


def test_a_download_that_never_ends_leaves_nothing_that_looks_complete(hub, tmp_path, state):
    hub.repos[MODEL].cuts["model.safetensors"] = [100_000] + [0] * 20
    with pytest.raises(WeightsError, match=r"model\.safetensors of 'someone/nano': the download broke off.*again"):
        resolve(MODEL)
    assert not blobs(tmp_path / "hub")
    assert not list((tmp_path / "hub").glob("**/snapshots/**/model.safetensors"))
    hub.repos[MODEL].cuts.clear()
    assert same(load_pretrained(resolve(MODEL)).state_dict(), state)


def test_a_reset_connection_is_a_broken_download_too(hub, tmp_path):
    hub.repos[MODEL].resets.add("model.safetensors")
    hub.repos[MODEL].cuts["model.safetensors"] = [100_000] + [0] * 20
    with pytest.raises(WeightsError, match="the download broke off"):
        resolve(MODEL)
    assert not blobs(tmp_path / "hub")


def test_a_short_file_is_not_taken_for_complete(hub, tmp_path):
    hub.repos[MODEL].announced_sizes["model.safetensors"] = len(hub.repos[MODEL].files["model.safetensors"]) + 10
    with pytest.raises(WeightsError, match="the download broke off"):
        resolve(MODEL)
    assert not blobs(tmp_path / "hub")


def test_damaged_bytes_are_noticed_and_removed(hub, tmp_path, state):
    hub.repos[MODEL].damaged.add("model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors of 'someone/nano' arrived damaged"):
        resolve(MODEL)
    assert not blobs(tmp_path / "hub")
    hub.repos[MODEL].damaged.clear()
    assert same(load_pretrained(resolve(MODEL)).state_dict(), state)


def test_a_truncated_cached_file_is_named_and_heals_when_deleted(hub, tmp_path, state):
    source = resolve(MODEL)
    blob = source.paths[0].resolve()
    os.truncate(blob, 5000)
    with pytest.raises(WeightsError, match=f"{blob} is truncated .*delete it"):
        load_pretrained(resolve(MODEL))
    blob.unlink()
    assert same(load_pretrained(resolve(MODEL)).state_dict(), state)


def test_a_file_larger_than_the_disk_is_not_begun(hub):
    hub.repos[MODEL].announced_sizes["model.safetensors"] = 10**18
    with pytest.raises(WeightsError, match=r"needs 1000000000.00 GB and .* free; free some space, or point HF_HOME"):
        resolve(MODEL)
    assert hub.downloads("model.safetensors") == []


@pytest.mark.parametrize(
    ("status", "error_code", "message"),
    [
        (401, "GatedRepo", r"model is gated; ask for access at http.*/someone/nano, then log in"),
        (403, "GatedRepo", "model is gated"),
        (404, "RepoNotFound", "no such model, or it is private"),
        (401, "RepoNotFound", "no such model, or it is private"),
        (401, "bad token", "HTTP status 401; the token may be wrong"),
        (500, "", "cannot be reached|HTTP status 500"),
    ],
)
def test_a_refusal_of_the_hub_is_explained(hub, status, error_code, message):
    hub.repos[MODEL].status, hub.repos[MODEL].error_code = status, error_code
    with pytest.raises(WeightsError, match=message) as caught:
        resolve(MODEL)
    assert "\n" not in str(caught.value)
    assert "config.json of 'someone/nano'" in str(caught.value)


def test_a_name_that_the_hub_cannot_have_is_refused(hub):
    with pytest.raises(WeightsError, match="no valid model name"):
        resolve("some--one/nano")


def test_a_hub_that_does_not_answer_is_named_unless_the_cache_suffices(hub, tmp_path, monkeypatch, state):
    source = resolve(MODEL)
    point_hub_at(closed_endpoint(), tmp_path / "hub", monkeypatch)
    assert resolve(MODEL) == source
    with pytest.raises(
        WeightsError, match=f"{constants.ENDPOINT} cannot be reached and {tmp_path / 'hub'} has no copy"
    ):
        resolve("someone/other")


def test_offline_uses_the_cache_alone(hub):
    source = resolve(MODEL)
    hub.requests.clear()
    assert resolve(MODEL, offline=True) == source
    with pytest.raises(WeightsError, match="offline mode forbids a download"):
        resolve("someone/other", offline=True)
    assert hub.requests == []


HUB_SCRIPT = """
import sys
from vggt_quant.model.weights.pretrained import resolve, weights_sha256
source = resolve(sys.argv[1])
print(source.revision, weights_sha256(source), source.paths[0])
"""


def test_the_environment_chooses_hub_cache_and_offline_mode(tmp_path, content):
    with HubServer() as server:
        server.repos[MODEL] = Repo({"config.json": CONFIG, "model.safetensors": content})
        environment = os.environ | {
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = [sys.executable, "-c", HUB_SCRIPT, MODEL]
        online = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    environment["HF_HUB_OFFLINE"] = "1"
    offline = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert online.stdout == offline.stdout
    assert online.stdout.startswith(f"{COMMIT} {hashlib.sha256(content).hexdigest()} {tmp_path / 'home'}")
    assert "model.safetensors:" not in online.stderr, "a progress bar belongs on a terminal only"


def test_the_file_on_the_hub_may_equal_a_local_one(hub, folder):
    assert weights_sha256(resolve(MODEL)) == weights_sha256(resolve(folder))
