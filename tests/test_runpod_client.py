"""`python -m runpod` against a server that behaves as RunPod's description says: what each command does."""

import datetime

import pytest
from runpod_account import set_status
from runpod_server import Fault
from runpod_session import FAST, open_session

from runpod.client import api as http
from runpod.client import logs, status

IMAGE = "ghcr.io/me/vggt_quant:0.1.0"


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys)


def connect():
    return http.from_environment(timeout_s=5, pace=FAST)


def test_template_apply_creates_once_and_then_changes_nothing(client):
    assert client("template", "apply", "--image", IMAGE).out.startswith("Created template vggt-quant")
    assert "up to date" in client("template", "apply", "--image", IMAGE).out
    (template,) = client.account.templates.values()
    assert template["image"] == IMAGE and template["env"]["VGGT_WORKSPACE"] == "/workspace"
    assert [method for method, *_ in client.server.requests] == ["GET", "POST", "GET", "GET"]


def test_template_apply_sends_only_what_differs(client):
    client("template", "apply", "--image", IMAGE)
    assert "Updated image of template" in client("template", "apply", "--image", "ghcr.io/me/vggt_quant:0.2.0").out
    assert client.server.requests[-1][2] == {"image": "ghcr.io/me/vggt_quant:0.2.0"}
    assert len(client.account.templates) == 1


def test_template_apply_refuses_the_image_that_nobody_has(client):
    outcome = client("template", "apply")
    assert outcome.code == 2 and "ghcr.io/OWNER/" in outcome.err and "--image" in outcome.err
    assert client.server.requests == []


def test_two_templates_of_one_name_are_not_guessed_between(client):
    client("template", "apply", "--image", IMAGE)
    client.account.templates["other"] = {**next(iter(client.account.templates.values())), "id": "other"}
    outcome = client("template", "apply", "--image", IMAGE)
    assert outcome.code == 1 and "tpl0001, other" in outcome.err


def test_a_volume_is_created_once_and_grows_only(client):
    assert "50 GB in EU-RO-1" in client("volume", "create").out
    assert "has 50 GB already" in client("volume", "create").out
    assert "grew from 50 to 80 GB" in client("volume", "create", "--size", "80").out
    assert "has 80 GB already; volumes only grow" in client("volume", "create", "--size", "50").out
    (volume,) = client.account.volumes.values()
    assert volume["size"] == 80 and client.server.sent("POST", "/network-volumes") == [
        {"name": "vggt-quant", "size": 50, "dataCenter": "EU-RO-1"}
    ]


def test_a_volume_does_not_move(client):
    client("volume", "create")
    outcome = client("volume", "create", "--data-center", "US-KS-2")
    assert outcome.code == 1 and "lies in EU-RO-1" in outcome.err


def test_pod_up_rents_the_first_gpu_that_can_be_had(client):
    client.prepare()
    client.account.capacity = {"NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"}
    outcome = client("pod", "up", "--env", "VGGT_VARIANTS=bf16", "--secret", "HF_TOKEN=hf")
    pod = client.only_pod()
    assert outcome.code == 0 and pod["id"] in outcome.out and "ssh pod" in outcome.out and "$2.89/h" in outcome.out
    tried = [body["gpu"] for body in client.server.sent("POST", "/pods")]
    assert [gpu["id"] for gpu in tried] == ["NVIDIA GeForce RTX 4090", "NVIDIA L40S", "NVIDIA H100 PCIe"]
    assert all(gpu["minCudaVersion"] == "13.0" and gpu["count"] == 1 for gpu in tried)
    assert pod["env"]["VGGT_VARIANTS"] == "bf16" and pod["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf }}"
    assert pod["env"]["VGGT_MODEL"] == "facebook/VGGT-1B" and pod["env"]["VGGT_AUTO_STOP"] == "terminate"
    assert pod["image"] == IMAGE


def test_the_pod_goes_where_the_volume_lies_and_mounts_it_at_workspace(client):
    client.prepare()
    client("volume", "create", "--name", "elsewhere", "--data-center", "US-KS-2")
    assert client("pod", "up", "--volume", "elsewhere").code == 0
    (volume,) = [volume for volume in client.account.volumes.values() if volume["name"] == "elsewhere"]
    assert client.only_pod()["dataCenterId"] == "US-KS-2"
    assert client.only_pod()["mounts"] == {"network": [{"volumeId": volume["id"], "path": "/workspace"}]}


@pytest.mark.parametrize("state", ["PROVISIONING", "RUNNING", "EXITED"])
def test_a_run_has_one_pod_unless_another_is_asked_for(client, state):
    client.prepare()
    client("pod", "up", "--run", "quick")
    set_status(client.only_pod(), state)
    again = client("pod", "up", "--run", "quick")
    assert again.code == 1 and client.only_pod()["id"] in again.err and "--another" in again.err
    assert client("pod", "up", "--run", "quick", "--another").code == 0
    assert client("pod", "up", "--run", "full").code == 0
    names = {"quick", "quick-2", "full"}
    assert {pod["name"] for pod in client.account.pods.values()} == names
    # Else the second would wait for the first, which works on the same results.
    assert {pod["env"]["VGGT_RUN_NAME"] for pod in client.account.pods.values()} == names


@pytest.mark.parametrize("missing", ["template", "volume"])
def test_pod_up_says_what_must_be_made_first(client, missing):
    client.prepare()
    {"template": client.account.templates, "volume": client.account.volumes}[missing].clear()
    outcome = client("pod", "up")
    assert outcome.code == 1 and f"run `python -m runpod {missing} " in outcome.err and not client.account.pods


def test_no_capacity_anywhere_is_one_sentence_with_list_and_place(client):
    client.prepare()
    client.account.capacity = set()
    outcome = client("pod", "up", "--gpu", "NVIDIA L40S", "--gpu", "NVIDIA H100 PCIe")
    (sentence,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.code == 1 and "(NVIDIA L40S, NVIDIA H100 PCIe) can be had in EU-RO-1" in sentence
    assert "no instances available" in sentence and not client.account.pods


def test_an_empty_balance_ends_the_search_at_once(client):
    client.prepare()
    client.account.balance_usd = 0
    outcome = client("pod", "up")
    assert outcome.code == 1 and "add credit" in outcome.err and len(client.server.sent("POST", "/pods")) == 1


def test_a_closed_pool_leads_to_the_next_gpu(client):
    client.prepare()
    client.server.faults.append(Fault("POST", "/pods", status=403, detail="no access to this pool"))
    assert client("pod", "up").code == 0 and client.only_pod()["gpu"]["id"] == "NVIDIA L40S"


def test_pod_up_waits_until_the_pod_runs_or_fails(client):
    client.prepare()
    client.server.faults.append(Fault("GET", "/pods/pod0003", content=b'{"id": "pod0003", "status": "RUNNING"}'))
    assert "Running after 0 s" in client("pod", "up", "--wait", "0.1").out
    client.server.faults.append(Fault("GET", "/pods/pod0004", content=b'{"id": "pod0004", "status": "ERROR"}'))
    outcome = client("pod", "up", "--wait", "0.1", "--another")
    assert outcome.code == 1 and "is ERROR" in outcome.err
    late = client("pod", "up", "--wait", "0.001", "--another")
    assert late.code == 1 and "does not run after 0.06 s but costs" in late.err


def test_down_terminates_what_has_a_network_volume_and_is_idempotent(client):
    client.prepare()
    client("pod", "up")
    assert "Terminated pod vggt-quant" in client("down").out and not client.account.pods
    again = client("down")
    assert again.code == 0 and "There is no pod vggt-quant" in again.out


def test_down_stops_what_has_no_network_volume_and_is_idempotent(client):
    client.prepare()
    client("pod", "up")
    client.only_pod()["mounts"] = {"persistent": {"size": 20, "path": "/workspace"}}
    assert "is stopped" in client("down").out and client.only_pod()["status"] == "EXITED"
    assert client("down").code == 0
    assert client.server.sent("POST", f"/pods/{client.only_pod()['id']}/action") == [{"action": "stop"}]


def test_down_does_what_is_asked(client):
    client.prepare()
    client("pod", "up")
    assert client("down", "vggt-quant", "--stop").code == 0 and client.only_pod()["status"] == "EXITED"
    assert client("down", client.only_pod()["id"], "--terminate").code == 0 and not client.account.pods


def test_down_names_the_pods_that_go_on_costing_when_the_name_is_wrong(client):
    client.prepare()
    client("pod", "up", "--run", "quick")
    assert f"quick ({client.only_pod()['id']})" in client("down", "quikc").out


def test_a_name_that_several_pods_bear_is_not_guessed(client):
    client.prepare()
    client("pod", "up")
    client.account.pods["second"] = {**client.only_pod(), "id": "second"}
    outcome = client("down")
    assert outcome.code == 1 and "pod0003, second" in outcome.err and len(client.account.pods) == 2


def test_status_shows_price_up_time_and_cost_so_far(client):
    client.prepare(size=100)
    client("pod", "up")
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2, minutes=30, seconds=5)
    set_status(client.only_pod(), "RUNNING")["startedAt"] = start.isoformat()
    out = client("status").out
    # 2.5 h at $0.74/h; 100 GB at $0.07.
    for text in ("0.74", "2:30", "$1.85", "7.00", "All pods together: $0.74/h."):
        assert text in out


def test_a_stopped_pod_has_no_up_time():
    now = datetime.datetime(2026, 6, 1, 13, tzinfo=datetime.UTC)
    pod = {"status": "EXITED", "startedAt": "2026-06-01T12:00:00Z"}
    assert status.uptime_s(pod, now) is None
    assert status.uptime_s({**pod, "status": "RUNNING"}, now) == 3600


def test_status_of_an_empty_account_says_so(client):
    assert client("status").out.startswith("No pods.")


def test_gpus_lists_prices_and_stock_for_our_driver_and_count(client):
    client.account.capacity = {"NVIDIA L40S"}
    lines = client("gpus").out.splitlines()
    assert [line for line in lines if "L40S" in line][0].split()[-4:] == ["48", "1.09", "HIGH", "HIGH"]
    assert [line for line in lines if "4090" in line][0].split()[-4:] == ["48", "0.74", "NONE", "-"]
    query = client.server.queries[-1][1]
    assert query == {
        **{"include": "AVAILABILITY", "product": "POD", "cloud": "SECURE"},
        **{"count": "1", "minCudaVersion": "13.0"},
    }


def test_logs_show_each_line_once_and_end_when_the_stream_is_silent(client, capsys):
    client.prepare()
    client("pod", "up")
    client.server.lines = ["Pulling image", "Model loaded."]
    logs.show(connect(), "vggt-quant", follow=False, tail=7, silence_s=0.3)
    assert [line.split("Z ")[1] for line in capsys.readouterr().out.splitlines()] == client.server.lines
    path, query, _ = client.server.queries[-1]
    assert path.endswith("/logs") and query == {"tail": "7"}


def test_following_logs_resumes_where_it_stopped_and_ends_with_the_pod(client, capsys):
    client.prepare()
    client("pod", "up")

    def next_line_then_end():
        client.server.lines.append(f"line {len(client.server.lines)}")
        if len(client.server.lines) == 3:
            set_status(client.only_pod(), "EXITED")

    client.server.before_logs = next_line_then_end
    logs.show(connect(), "vggt-quant", follow=True, tail=100, silence_s=0.3, poll_s=0.01)
    captured = capsys.readouterr()
    assert [line.split("Z ")[1] for line in captured.out.splitlines()] == ["line 0", "line 1", "line 2"]
    assert "is EXITED" in captured.err
    resumed = [headers.get("Last-Event-ID") for path, _, headers in client.server.queries if path.endswith("/logs")]
    assert resumed[0] is None and resumed[1].endswith("/000000000000") and resumed[2].endswith("/000000000001")


def test_logs_of_no_pod_are_an_error(client):
    outcome = client("logs", "nobody")
    assert outcome.code == 1 and "There is no pod nobody" in outcome.err
