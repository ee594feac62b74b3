"""`pod up` says which GPU it asks for at which price, keeps to `--max-price`, and sends no pod to its loss."""

import json
from pathlib import Path

import pytest
import runpod_account
from runpod_session import open_session

FOLDER = Path(__file__).parent.parent / "runpod"
POD = json.loads((FOLDER / "pod.json").read_text())
RTX, L40S, H100 = "NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA H100 PCIe"


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys)


def asked(client):
    return [body["gpu"]["id"] for body in client.server.sent("POST", "/pods")]


def pod_file(tmp_path, **change):
    (tmp_path / "pod.json").write_text(json.dumps({**POD, **change}))
    return "--pod-file", str(tmp_path / "pod.json")


def test_each_gpu_is_named_with_its_price_before_it_is_asked_for(client):
    client.prepare()
    client.account.capacity = {H100}
    lines = client("pod", "up").err.splitlines()
    assert [line for line in lines if line.startswith("Asking")] == [
        f"Asking for 1 x {RTX} at $0.74/h.",
        f"Asking for 1 x {L40S} at $1.09/h.",
        f"Asking for 1 x {H100} at $2.89/h.",
    ]
    assert lines.index(f"Asking for 1 x {L40S} at $1.09/h.") > lines.index(
        f"{RTX}: not to be had (no instances available with the requested specification)."
    )


def test_gpus_above_the_limit_are_left_out_and_named(client):
    client.prepare()
    client.account.capacity = {H100}
    outcome = client("pod", "up", "--max-price", "1.09")
    assert outcome.code == 1 and asked(client) == [RTX, L40S] and not client.account.pods
    assert f"{H100}: left out; $2.89/h is above --max-price 1.09." in outcome.err


def test_todays_price_counts_and_not_that_of_the_file(client, monkeypatch):
    client.prepare()
    monkeypatch.setitem(runpod_account.PRICES, RTX, 1.50)
    assert client("pod", "up", "--max-price", "1.10").code == 0 and asked(client) == [L40S]


def test_the_limit_holds_for_all_gpus_of_the_pod_together(client, tmp_path):
    client.prepare()
    outcome = client("pod", "up", "--max-price", "1.10", *pod_file(tmp_path, gpuCount=2))
    assert outcome.code == 1 and not asked(client) and f"{RTX}: left out; $1.48/h" in outcome.err
    assert "No GPU of the list costs $1.1/h or less" in outcome.err
    assert f"Asking for 2 x {RTX} at $1.48/h." in client("pod", "up", *pod_file(tmp_path, gpuCount=2)).err


def test_a_gpu_without_a_known_price_is_asked_for_without_a_limit_only(client):
    client.prepare()
    outcome = client("pod", "up", "--max-price", "9", "--gpu", "NVIDIA New")
    assert outcome.code == 1 and "NVIDIA New: left out; its price is not known" in outcome.err and not asked(client)
    assert "Asking for 1 x NVIDIA New at a price that is not known." in client("pod", "up", "--gpu", "NVIDIA New").err
    assert asked(client) == ["NVIDIA New"]


def test_a_dry_run_shows_the_whole_range_and_what_a_limit_leaves(client):
    # GPU and 40 GB of disk at 10 cents a month of 730 h: 0.74 + 0.0055 and 3.99 + 0.0055.
    assert "$0.75/h to $4.00/h; --max-price" in client("pod", "up", "--dry-run").err
    outcome = client("pod", "up", "--dry-run", "--max-price", "3")
    assert "$0.75/h to $2.90/h" in outcome.err and "HBM3: left out; $3.99/h" in outcome.err
    assert f"then {H100}." in outcome.err and not client.server.requests
    assert client("pod", "up", "--dry-run", "--max-price", "0.5").code == 1


@pytest.mark.parametrize("price", ["0", "-1", "nan", "cheap"])
def test_an_impossible_limit_is_refused(client, price):
    assert client("pod", "up", "--max-price", price).code == 2 and not client.server.requests


@pytest.mark.parametrize("image", ["ghcr.io/OWNER/vggt_quant:0.1.0", "ghcr.io/you/vggt_quant:0.1.0"])
def test_no_pod_is_rented_for_an_image_that_nobody_has(client, image):
    client.prepare()
    next(iter(client.account.templates.values()))["image"] = image
    outcome = client("pod", "up")
    assert outcome.code == 2 and not asked(client)
    assert image in outcome.err and "build and push your own" in outcome.err and "--image NAME" in outcome.err
    assert client("template", "apply", "--image", image).code == 2
    assert not client.server.sent("PATCH", "/templates/tpl0001")


OUTSIDE = ["/root", "/workspace2", "/", "/workspace/../root", "workspace", "{{ RUNPOD_SECRET_x }}"]


@pytest.mark.parametrize("folder", OUTSIDE)
def test_a_workspace_off_the_volume_is_refused_in_one_sentence(client, tmp_path, folder):
    client.prepare()
    client.server.requests.clear()
    env = {**POD["env"], "VGGT_WORKSPACE": folder}
    for argv in (("--env", f"VGGT_WORKSPACE={folder}"), pod_file(tmp_path, env=env)):
        outcome = client("pod", "up", *argv)
        assert outcome.code == 2 and outcome.err.count("\n") == 1 and not client.server.requests
        assert f"{folder!r}, which is not on the volume at /workspace" in outcome.err


def test_a_workspace_off_the_volume_is_refused_in_the_template_too(client, tmp_path):
    client.prepare()
    next(iter(client.account.templates.values()))["env"]["VGGT_WORKSPACE"] = "/root"
    outcome = client("pod", "up")
    assert outcome.code == 2 and "'/root', which is not on the volume" in outcome.err and not asked(client)
    # What the pod says counts more.
    assert client("pod", "up", "--env", "VGGT_WORKSPACE=/workspace").code == 0
    template = {**json.loads((FOLDER / "template.json").read_text()), "env": {"VGGT_WORKSPACE": "/root"}}
    (tmp_path / "template.json").write_text(json.dumps(template))
    assert client("pod", "up", "--dry-run", "--template-file", str(tmp_path / "template.json")).code == 2


def test_the_pod_works_where_the_volume_is_mounted(client, tmp_path):
    client.prepare()
    del next(iter(client.account.templates.values()))["env"]["VGGT_WORKSPACE"]
    assert client("pod", "up", *pod_file(tmp_path, volume={**POD["volume"], "path": "/data"})).code == 0
    assert client.only_pod()["env"]["VGGT_WORKSPACE"] == client.only_pod()["mounts"]["network"][0]["path"] == "/data"
    assert client("pod", "up", "--run", "b", "--env", "VGGT_WORKSPACE=/workspace/b").code == 0
