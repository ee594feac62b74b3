"""template.json, pod.json, prices.json and what `--dry-run` makes of them; payloads against RunPod's description."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import runpod_account
from jsonschema import Draft202012Validator
from pods import IMPOSSIBLE
from runpod_session import open_session

from runpod.client import cost, settings

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runpod"
DESCRIPTION = ROOT.parent / "shared" / "runpod" / "openapi-v2.json"
POD = json.loads((FOLDER / "pod.json").read_text())


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys)


@pytest.fixture
def offline(monkeypatch, client):
    """No key, and an address where nobody listens."""
    monkeypatch.delenv("RUNPOD_API_KEY")
    monkeypatch.setenv("VGGT_RUNPOD_URL", "http://127.0.0.1:9/v2")
    return client


def description():
    if not DESCRIPTION.exists():
        pytest.skip("RunPod's description lies beside the repository of its developers only")
    return json.loads(DESCRIPTION.read_text())


def check(document, name, value):
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert not errors, f"{name}: {errors}"


def test_a_dry_run_of_the_template_prints_exactly_what_is_sent(offline):
    outcome = offline("template", "apply", "--dry-run")
    assert outcome.code == 0 and json.loads(outcome.out) == json.loads((FOLDER / "template.json").read_text())
    assert "POST http://127.0.0.1:9/v2/templates" in outcome.err and "warning: The image 'ghcr.io/OWNER/" in outcome.err


def test_a_dry_run_of_the_volume_prints_payload_and_price(offline):
    outcome = offline("volume", "create", "--size", "1200", "--dry-run")
    assert json.loads(outcome.out) == {"name": "vggt-quant", "size": 1200, "dataCenter": "EU-RO-1"}
    # 1000 GB at 7 cents and 200 GB at 5.
    assert "$80.00/month" in outcome.err


def test_a_dry_run_of_the_pod_prints_payload_and_price(offline):
    outcome = offline("pod", "up", "--dry-run", "--hours", "2", "--gpu", "NVIDIA L40S", "--gpu", "NVIDIA New")
    payload = json.loads(outcome.out)
    assert payload["gpu"] == {"id": "NVIDIA L40S", "count": 1, "minCudaVersion": "13.0"}
    assert payload["mounts"]["network"][0]["path"] == "/workspace" and payload["dataCenterIds"] == ["EU-RO-1"]
    # 2 h at 1.09 and 40 GB of disk at 10 cents a month of 730 h: 2.18 + 0.011.
    assert "NVIDIA L40S: $1.10/h x 2 h = $2.19" in outcome.err and "NVIDIA New: not in prices.json" in outcome.err
    assert "then" not in payload and "same with gpu.id NVIDIA New" in outcome.err and "$3.50/month" in outcome.err
    assert "2026-09-25" in outcome.err and "recheck" in outcome.err


def test_a_dry_run_of_the_end_prints_both_ways(offline):
    outcome = offline("down", "quick", "--dry-run")
    assert "DELETE" in outcome.err and json.loads(outcome.out) == {"action": "stop"}
    assert offline("down", "quick", "--terminate", "--dry-run").out == ""


def test_a_dry_run_needs_no_key_and_contacts_nobody(client, monkeypatch):
    monkeypatch.delenv("RUNPOD_API_KEY")
    for argv in (("template", "apply"), ("volume", "create"), ("pod", "up"), ("down",)):
        assert client(*argv, "--dry-run").code == 0
    assert not client.server.requests


def test_the_client_runs_from_a_checkout_with_the_standard_library_only():
    """-S: without site-packages."""
    command = [sys.executable, "-S", "-m", "runpod", "pod", "up", "--dry-run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={})
    assert result.returncode == 0 and json.loads(result.stdout)["name"] == "vggt-quant", result.stderr


def test_the_payload_of_a_dry_run_is_the_one_that_is_sent(client):
    client.prepare()
    shown = json.loads(client("pod", "up", "--dry-run").out)
    client("pod", "up")
    (sent,) = client.server.sent("POST", "/pods")
    assert sent.pop("templateId") in client.account.templates and shown.pop("templateId")
    assert sent["mounts"]["network"][0].pop("volumeId") in client.account.volumes
    assert shown["mounts"]["network"][0].pop("volumeId") and shown == sent


def test_what_is_sent_fits_runpods_description(client):
    document = description()
    client.prepare()
    client("template", "apply", "--image", "ghcr.io/me/vggt_quant:0.2.0")
    client("volume", "create", "--size", "60")
    client("pod", "up", "--secret", "HF_TOKEN=hf")
    pod = client.only_pod()["id"]
    client("down", "--stop")
    template, volume = next(iter(client.account.templates)), next(iter(client.account.volumes))
    schemas = {
        ("POST", "/templates"): "CreateTemplateRequest",
        ("PATCH", f"/templates/{template}"): "UpdateTemplateRequest",
        ("POST", "/network-volumes"): "CreateNetworkVolumeRequest",
        ("PATCH", f"/network-volumes/{volume}"): "UpdateNetworkVolumeRequest",
        ("POST", "/pods"): "CreatePodRequest",
        ("POST", f"/pods/{pod}/action"): "PodActionRequest",
    }
    for (method, path), name in schemas.items():
        (body,) = client.server.sent(method, path)
        check(document, name, body)


def test_the_test_server_answers_as_runpods_description_says(client):
    document = description()
    client.prepare()
    client("pod", "up")
    answers = {
        "ListTemplatesResponse": client.account.list_templates(),
        "ListNetworkVolumesResponse": client.account.list_volumes(),
        "ListPodsResponse": client.account.list_pods(),
        "ListGpuTypesResponse": client.account.list_gpus(),
    }
    for name, (_, answer) in answers.items():
        check(document, name, answer)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("CreateTemplateRequest", runpod_account.TEMPLATE),
        ("CreatePodRequest", runpod_account.POD),
        ("CreateNetworkVolumeRequest", runpod_account.VOLUME),
        ("CreateGpuConfig", runpod_account.GPU),
        ("NetworkMount", runpod_account.NETWORK),
    ],
)
def test_the_test_server_knows_the_fields_that_runpod_knows(name, fields):
    schemas = description()["components"]["schemas"]

    def properties(schema):
        schema = schemas[schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
        return {*schema.get("properties", {})}.union(*map(properties, schema.get("allOf", [])))

    assert properties(schemas[name]) == set(fields)


def test_the_template_names_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    template = settings.read_template(FOLDER / "template.json", None)
    assert template["image"].endswith(f"/vggt_quant:{version}")


def test_the_start_script_reads_every_variable_that_we_set(client):
    client.prepare()
    client("pod", "up")
    script = "".join(path.read_text() for path in (FOLDER / "start.sh", *(FOLDER / "lib").glob("*.sh")))
    assert [name for name in client.only_pod()["env"] if f"${{{name}:" not in script] == []


def test_every_gpu_of_the_list_has_a_price_with_date_and_source():
    prices = json.loads((FOLDER / "prices.json").read_text())
    for gpu in POD["gpus"]:
        assert prices["gpus"][gpu]["usd_per_hour_secure"] > 0
    for entry in (*prices["gpus"].values(), prices["network_volume"], prices["container_disk"]):
        assert entry["read"] >= "2026-01-01" and entry["source"].startswith("https://")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpu": "x"}, "gpu is unknown"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"gpus": []}, "No GPU is named"),
        ({"gpus": [4090]}, "gpus holds something that is no text"),
        ({"gpus": "NVIDIA L40S"}, "must be of type list"),
        ({"gpuCount": 0}, "gpuCount is 0"),
        ({"gpuCount": True}, "gpuCount is True"),
        ({"minCudaVersion": "13"}, "minCudaVersion is '13'"),
        ({"minCudaVersion": 13.0}, "minCudaVersion is 13.0"),
        ({"cloud": "COMMUNITY"}, "network volumes need SECURE"),
        ({"env": {"A": 1}}, "env holds something that is no text"),
        ({"env": {"VGGT_AUTO_STOP": "yes"}}, "VGGT_AUTO_STOP is 'yes'"),
        ({"volume": {**POD["volume"], "size": 5}}, "5 GB is impossible"),
        ({"volume": {"name": "x", "size": 50}}, "volume.dataCenter is missing"),
        ({"volume": {**POD["volume"], "mount": "/"}}, "volume.mount is unknown"),
        ({"volume": {**POD["volume"], "path": "workspace"}}, "volume.path is 'workspace'"),
        ({"volume": {**POD["volume"], "path": "/"}}, "volume.path is '/'"),
        ({"volume": None}, "volume is None"),
    ],
)
def test_a_mistake_in_pod_json_is_named_before_anything_is_sent(client, tmp_path, change, words):
    (tmp_path / "pod.json").write_text(json.dumps({**POD, **change}))
    outcome = client("pod", "up", "--pod-file", str(tmp_path / "pod.json"))
    assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1 and not client.server.requests


@pytest.mark.parametrize("key", ["name", "template", "volume", "gpus", "env"])
def test_a_missing_key_in_pod_json_is_named(client, tmp_path, key):
    (tmp_path / "pod.json").write_text(json.dumps({name: value for name, value in POD.items() if name != key}))
    outcome = client("pod", "up", "--pod-file", str(tmp_path / "pod.json"))
    assert outcome.code == 2 and f"{key} is missing" in outcome.err


NAMED = '{"name": "x", "image": "y", '
BROKEN = ["{", "[]", None, '{"image": "x"}', '{"name": "x"}', '{"name": 1, "image": "x"}']


@pytest.mark.parametrize(
    "content", [*BROKEN, NAMED + '"env": []}', NAMED + '"env": {"A": 1}}', NAMED + '"disk": "40"}']
)
def test_a_broken_template_file_is_named(client, tmp_path, content):
    path = tmp_path / "template.json"
    if content is not None:
        path.write_text(content)
    outcome = client("template", "apply", "--template-file", str(path))
    assert outcome.code == 2 and str(path) in outcome.err


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("pod",),
        ("pod", "up", "--env", "NOVALUE"),
        ("pod", "up", "--env", "1A=x"),
        ("pod", "up", "--env", "VGGT_AUTO_STOP=maybe"),
        ("pod", "up", "--secret", "HF_TOKEN=hf_a-b"),
        ("pod", "up", "--hours", "-1"),
        ("volume", "create", "--size", "9"),
        ("volume", "create", "--size", "4097"),
        ("logs", "--tail", "5001"),
        ("status", "--timeout", "0"),
        ("down", "--stop", "--terminate"),
    ],
)
def test_wrong_arguments_end_with_2_and_send_nothing(client, argv):
    outcome = client(*argv)
    assert outcome.code == 2 and outcome.err and not client.server.requests


@pytest.mark.parametrize(("name", "value"), [*IMPOSSIBLE, ("VGGT_AUTO_STOP", "maybe")])
def test_a_variable_that_the_start_script_refuses_is_refused_before_anything_is_sent(client, tmp_path, name, value):
    client.prepare()
    client.server.requests.clear()
    (tmp_path / "pod.json").write_text(json.dumps({**POD, "env": {name: value}}))
    for argv in (("--env", f"{name}={value}"), ("--pod-file", str(tmp_path / "pod.json"))):
        for dry in ((), ("--dry-run",)):
            outcome = client("pod", "up", *argv, *dry)
            assert outcome.code == 2 and outcome.err.count("\n") == 1 and not client.server.requests
            assert f"{name} is {value!r}" in outcome.err
    assert client("pod", "up", "--env", f"{name}=", "--dry-run").code == 0, "empty is as good as not there"


def test_a_misspelt_variable_is_refused_wherever_it_stands(client, tmp_path):
    template = json.loads((FOLDER / "template.json").read_text())
    template["env"]["VGGT_IMAGE"] = "photos"
    (tmp_path / "template.json").write_text(json.dumps(template))
    (tmp_path / "pod.json").write_text(json.dumps({**POD, "env": {"VGGT_IMAGE": "photos"}}))
    file = ("--template-file", str(tmp_path / "template.json"))
    pod = ("pod", "up", "--dry-run")
    misspelt = ((*pod, "--env", "VGGT_IMAGE=x"), (*pod, "--pod-file", str(tmp_path / "pod.json")), (*pod, *file))
    for argv in (*misspelt, (*pod[:2], "--secret", "VGGT_IMAGE=x"), ("template", "apply", "--image", "x", *file)):
        outcome = client(*argv)
        assert outcome.code == 2 and "VGGT_IMAGE is no setting of a pod; write VGGT_IMAGES, or" in outcome.err
    assert not client.server.requests
    client.prepare()
    next(iter(client.account.templates.values()))["env"]["VGGT_X"] = "1"
    outcome = client("pod", "up")
    assert outcome.code == 2 and "VGGT_X is no setting" in outcome.err and not client.account.pods
    assert client(*pod, "--env", "MY_OWN=x", "--env", "VGGT_RUN=No", "--env", "VGGT_AUTO_STOP=Stop").code == 0


def test_prices_add_up():
    prices = cost.read_prices(FOLDER / "prices.json")
    assert prices.volume_month(50) == pytest.approx(3.50)
    assert prices.volume_month(1000) == pytest.approx(70)
    assert prices.volume_month(4096) == pytest.approx(70 + 3096 * 0.05)
    assert prices.gpu_hour("NVIDIA L40S") == 1.09 and prices.gpu_hour("abacus") is None


def test_incomplete_prices_are_named(tmp_path):
    (tmp_path / "prices.json").write_text('{"gpus": {}}')
    with pytest.raises(ValueError, match="network_volume"):
        cost.read_prices(tmp_path / "prices.json")
