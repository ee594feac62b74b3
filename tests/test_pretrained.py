"""Weights: found by name, fetched over real HTTP, identified, checked and loaded strictly."""

import copy
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, HubServer, Repo, closed_endpoint
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file

from vggt_quant.model.config import NAMED
from vggt_quant.model.hub import WeightsError
from vggt_quant.model.pretrained import load_pretrained, load_state, resolve, weights_sha256
from vggt_quant.model.random_weights import random_tensor

MODEL = "someone/nano"
CONFIG = json.dumps(NAMED["nano"].to_dict()).encode()


@pytest.fixture(scope="module")
def state():
    """The nano model's weights."""
    return load_state(resolve("nano-random"))


@pytest.fixture(scope="module")
def content(state):
    """The same as the bytes of a safetensors file."""
    return save(state)


@pytest.fixture
def folder(tmp_path, content):
    """A local folder that holds the nano model."""
    folder = tmp_path / "nano"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(content)
    return folder


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


def same(first, second):
    """Whether two state dicts agree in names, order aside, and in every bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def blobs(cache):
    """The downloaded files of a hub cache that look complete, weights only."""
    return [path for path in cache.glob("models--*/blobs/*") if len(path.name) == 64]


# Names


def test_random_weights_are_found_by_the_name_of_a_configuration():
    source = resolve("small-random:7")
    assert (source.kind, source.config, source.paths, source.random_seed) == ("random", NAMED["small"], (), 7)
    assert source.label == "random weights (seed 7)"
    assert {resolve(f"{name}-random").random_seed for name in NAMED} == {0}


@pytest.mark.parametrize("name", ["vggt", "random", "huge-random", "small-random:x", "a b", ""])
def test_an_unknown_name_is_answered_with_what_is_possible(name):
    with pytest.raises(ValueError, match=r"facebook/VGGT-1B.*\.safetensors.*small-random.*small-random:7|no weights"):
        resolve(name)


@pytest.mark.parametrize("name", ["./absent", "absent.pt", "a/b/c", "weights/absent.safetensors", "~/absent"])
def test_a_missing_path_is_called_missing_and_never_asked_of_the_hub(name):
    with pytest.raises(WeightsError, match=f"no file or folder '{name}'"):
        resolve(name)


def test_a_folder_and_its_file_are_the_same_model(folder, state):
    for path, kind in ((folder, "folder"), (folder / "model.safetensors", "file")):
        source = resolve(path)
        assert (source.kind, source.config, source.name) == (kind, NAMED["nano"], str(path))
        assert source.label == str(path)
        assert same(load_pretrained(source).state_dict(), state)


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    with pytest.raises(WeightsError, match="needs one of model.safetensors"):
        resolve(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match=r"weights.gguf is no weight file; give a \.safetensors"):
        resolve(tmp_path / "weights.gguf")


@pytest.mark.parametrize("text", ["{", "[]", '{"aggregator": {"depht": 3}}', '{"embed_dim": 768}', '{"aggregator": 3}'])
def test_a_config_that_describes_no_vggt_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=str(folder / "config.json")):
        resolve(folder)


# Loading


def test_a_loaded_model_is_ready_for_inference(folder):
    model = load_pretrained(resolve(folder))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_changing_a_loaded_model_never_touches_its_file(folder, content):
    model = load_pretrained(resolve(folder))
    for parameter in model.parameters():
        parameter.data.zero_()
    assert (folder / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_widened_to_float32(folder, state, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, folder / "model.safetensors")
    loaded = load_pretrained(resolve(folder)).state_dict()
    assert same(loaded, {name: tensor.to(dtype).float() for name, tensor in state.items()})


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "weights.bin"])
def test_pickled_state_dicts_load_bare_or_wrapped(tmp_path, state, wrapper, name):
    (tmp_path / "config.json").write_bytes(CONFIG)
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / name)
    assert same(load_pretrained(resolve(tmp_path / name)).state_dict(), state)


def test_shards_load_as_one_model(folder, state):
    write_shards(folder, state)
    source = resolve(folder)
    assert [path.name for path in source.paths] == ["model-1.safetensors", "model-2.safetensors"]
    assert same(load_pretrained(source).state_dict(), state)


def write_shards(folder, state):
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in part}, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_missing_shard_is_named(folder, state):
    write_shards(folder, state)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-2\.safetensors is missing"):
        resolve(folder)


def test_a_tensor_in_two_shards_is_refused(folder, state):
    write_shards(folder, state)
    (folder / "model-2.safetensors").write_bytes((folder / "model-1.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="repeats tensors"):
        load_pretrained(resolve(folder))


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/x.safetensors", "model.pt"])
def test_an_index_cannot_point_outside_its_folder(folder, shard):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match="does not list"):
        resolve(folder)


def test_a_model_without_a_head_loads_when_its_config_says_so(tmp_path, state):
    config = replace(NAMED["nano"], track_head=None)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("track_head.")}
    save_file(kept, tmp_path / "model.safetensors")
    assert same(load_pretrained(resolve(tmp_path)).state_dict(), kept)


def test_a_missing_head_that_the_config_promises_is_named_with_its_switch(folder, state):
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("track_head.")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks .* 'track_head\..*enable_track in the config.json"):
        load_pretrained(resolve(folder))


def test_every_kind_of_misfit_is_named(folder, state):
    name = "aggregator.patch_embed.norm.bias"
    misfits = {
        r"1 shapes differ, such as 'aggregator.patch_embed.norm.bias': \[7\], not \[128\]": {name: torch.zeros(7)},
        "1 others, such as 'encoder.extra'": {"encoder.extra": torch.zeros(3)},
        r"1 dtypes are unknown, .*norm.bias': torch.int8": {name: torch.zeros(128, dtype=torch.int8)},
        "others, such as .*VGGT-Omega": {"aggregator.other_register_token": torch.zeros(1, 2, 16, 8)},
    }
    for message, change in misfits.items():
        save_file(state | change, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=f"model.safetensors does not fit the model: .*{message}"):
            load_pretrained(resolve(folder))


def test_nano_weights_without_a_config_are_no_vggt_1b(folder):
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks .* of 1797 tensors.*config.json that belongs to them"):
        load_pretrained(resolve(folder))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_truncated_file_is_named(tmp_path, state, content, name, share):
    path = tmp_path / name
    (tmp_path / "config.json").write_bytes(CONFIG)
    if name.endswith(".pt"):
        torch.save(state, path)
        content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=f"{path} is truncated or no .*delete it"):
        load_pretrained(resolve(path))


class Sneaky:
    """A pickled object that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, state):
    torch.save({"model": state, "extra": Sneaky(tmp_path / "owned")}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights.pt holds more than tensors"):
        load_pretrained(resolve(tmp_path / "weights.pt"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("value", [3, [torch.zeros(2)], {"model": {"a": 1}}])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_pretrained(resolve(tmp_path / "weights.pt"))


MEMORY_SCRIPT = """
import pathlib, re, sys, torch
from vggt_quant.model.pretrained import load_pretrained, resolve

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

def used(name):
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = status("VmRSS")
    model = load_pretrained(resolve(name))
    sum(parameter.sum().item() for parameter in model.parameters())  # reads every page
    return status("VmHWM") - before

load_pretrained(resolve("nano-random"))
print(*map(used, sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's memory accounts")
def test_loading_needs_the_memory_of_one_copy(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(NAMED["small"].to_dict()))
    small = load_state(resolve("small-random"))
    save_file(small, tmp_path / "model.safetensors")
    torch.save(small, tmp_path / "model.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    names = [str(tmp_path / "model.safetensors"), str(tmp_path / "model.pt"), "small-random"]
    command = [sys.executable, "-c", MEMORY_SCRIPT, *names]
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    size = sum(tensor.nbytes for tensor in small.values())
    assert size > 40e6
    for name, used in zip(names, map(int, output.split()), strict=True):
        # One copy and 16 MB: modules, names, and what an allocator keeps; a second copy would be far more.
        assert used < size + 16e6, name


# Identity


def test_a_file_is_identified_by_its_bytes(folder, content):
    digest = hashlib.sha256(content).hexdigest()
    assert weights_sha256(resolve(folder)) == digest
    moved = folder.rename(folder.with_name("moved"))
    assert weights_sha256(resolve(moved / "model.safetensors")) == digest
    (moved / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_sha256(resolve(moved)) != digest


def test_every_shard_counts_in_the_identity(folder, state):
    write_shards(folder, state)
    first = weights_sha256(resolve(folder))
    state = dict(state)
    state["camera_head.token_norm.bias"] = state["camera_head.token_norm.bias"] + 1
    (folder / "model.safetensors").touch()
    write_shards(folder, state)
    assert weights_sha256(resolve(folder)) != first


def test_a_file_that_vanished_has_no_identity(folder):
    source = resolve(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors: No such file"):
        weights_sha256(source)


def test_random_weights_are_identified_by_sizes_and_seed():
    names = ["nano-random", "nano-random:1", "small-random", "small-random:1", "vggt-1b-random"]
    assert len({weights_sha256(resolve(name)) for name in names}) == len(names)
    assert weights_sha256(resolve("nano-random:0")) == weights_sha256(resolve("nano-random"))


# Random weights


def test_random_weights_are_equal_bit_for_bit_on_every_machine():
    tensor = random_tensor("aggregator.frame_blocks.3.mlp.fc1.weight", torch.Size((400, 300)), seed=5)
    digest = hashlib.sha256(tensor.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "9525ec16aa13c3d7d795d9b280a8ce3a9726fed011efa1eee7bcdc31a73131b3"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(state):
    assert same(load_state(resolve("nano-random:0")), state)
    other = load_state(resolve("nano-random:1"))
    assert other.keys() == state.keys()
    assert not any(torch.equal(other[name], state[name]) for name in state)


def test_random_linear_weights_are_normal_with_the_variance_of_one_over_fan_in():
    values = random_tensor("blocks.0.attn.qkv.weight", torch.Size((4096, 256)), seed=0).double() * 16
    # A million values: standard errors are 0.001, 0.0007 and 0.005.
    assert abs(values.mean()) < 0.005
    assert abs(values.std() - 1) < 0.004
    assert abs(values.pow(4).mean() - 3) < 0.03
    assert 3.9 < values.abs().max() < 4.05


@pytest.fixture(scope="module", params=["nano-random:0", "nano-random:1", "small-random:0"])
def model(request):
    return load_pretrained(resolve(request.param))


def predict(model, seed, dtype=torch.float32):
    """Outputs for three smooth random photos, with query points."""
    side = model.config.img_size
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(images, size=(side, side), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        return model(images.to(dtype), query_points=torch.tensor([[20.0, 30.0], [60.0, 50.0]]))


def test_random_weights_give_sane_cameras_depths_and_points(model):
    outputs = predict(model, seed=0)
    assert all(value.isfinite().all() for value in outputs.values() if torch.is_tensor(value))
    depth, pose = outputs["depth"], outputs["pose_enc"]
    assert 0.3 < depth.median() < 3
    assert depth.max() < 100
    assert outputs["world_points"].abs().max() < 100
    assert pose[..., 3:7].norm(dim=-1).min() > 0.5
    assert (pose[..., 7:] > 0.4).all()
    assert (pose[..., 7:] < 1.7).all()


def test_random_weights_give_finite_outputs_in_bfloat16(model):
    outputs = predict(copy.deepcopy(model).to(torch.bfloat16), seed=0, dtype=torch.bfloat16)
    assert all(value.isfinite().all() for value in outputs.values() if torch.is_tensor(value))
    assert outputs["depth"].max() < 100


def test_random_weights_look_at_their_images(model):
    first, second = predict(model, seed=0), predict(model, seed=1)
    for key, smallest in (("depth", 0.05), ("world_points", 0.05), ("pose_enc", 0.005), ("depth_conf", 0.01)):
        change = (first[key] - second[key]).square().mean().sqrt() / first[key].square().mean().sqrt()
        assert change > smallest, f"{key} hardly depends on the photos"
        frames = first[key].unbind(dim=1)
        assert not torch.allclose(frames[1], frames[2], rtol=1e-3), f"{key} is the same for every frame"


# The hub


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
from vggt_quant.model.pretrained import resolve, weights_sha256
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
    assert same(load_file(resolve(MODEL).paths[0]), load_state(resolve(folder)))
