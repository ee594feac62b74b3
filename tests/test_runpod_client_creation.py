"""`python -m runpod` creates one thing when answers are lost and lists are late, and says so where it cannot know."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runpod_server import Fault
from runpod_session import FAST, open_session

from runpod.client import creation

ROOT = Path(__file__).parent.parent
PATIENT = dataclasses.replace(FAST, listing_s=30)
"""For lists that show it in the end."""
SHORT = dataclasses.replace(FAST, listing_s=0.5)
"""Some looks, if not all are for nothing."""
GLANCE = dataclasses.replace(FAST, listing_s=0)
"""One look."""
NEVER = 10**6
KINDS = [
    ("/pods", ("pod", "up")),
    ("/network-volumes", ("volume", "create", "--name", "new")),
    ("/templates", ("template", "apply", "--image", "ghcr.io/me/new:1", "--template-file")),
]
kinds = pytest.mark.parametrize(("path", "argv"), KINDS, ids=["pod", "volume", "template"])
MAY_EXIST = "may exist all the same"


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys)


@pytest.fixture
def make(client, tmp_path):
    """Create something new of this kind; the requests of the preparation are forgotten."""
    (tmp_path / "template.json").write_text('{"name": "new", "image": "x"}')
    client.prepare()
    client.server.requests.clear()

    def run(argv, pace=FAST):
        file = [str(tmp_path / "template.json")] if argv[-1] == "--template-file" else []
        return client(*argv, *file, "--timeout", "0.5", pace=pace)

    return run


def created_here(client, path):
    """How many things of this kind there are beyond those of the preparation."""
    account = client.account
    things = {"/pods": account.pods, "/network-volumes": account.volumes, "/templates": account.templates}[path]
    return len(things) - (path != "/pods")


@kinds
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"cuts": True}, {"hangs": True}, {"content": b"<html>"}, {"content": b"{}"}]
)
def test_what_was_created_without_an_answer_is_found_and_not_created_twice(client, make, path, argv, fault):
    client.server.faults.append(Fault("POST", path, is_done=True, **fault))
    assert make(argv).code == 0
    assert created_here(client, path) == len(client.server.sent("POST", path)) == 1


@kinds
def test_what_is_listed_late_is_waited_for_and_not_created_twice(client, make, path, argv):
    client.account.late_lists = [6]
    client.server.faults.append(Fault("POST", path, is_done=True, status=504))
    outcome = make(argv, PATIENT)
    assert outcome.code == 0 and "lest there be two" in outcome.err
    assert created_here(client, path) == len(client.server.sent("POST", path)) == 1


@kinds
@pytest.mark.parametrize("fault", [{"status": 502}, {"cuts": True}])
def test_what_was_not_created_is_asked_for_again(client, make, path, argv, fault):
    client.server.faults.append(Fault("POST", path, **fault))
    assert make(argv).code == 0
    assert created_here(client, path) == 1 and len(client.server.sent("POST", path)) == 2


def test_too_many_requests_are_waited_for_without_a_search(client, make):
    client.server.faults.append(Fault("POST", "/pods", status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    outcome = make(("pod", "up"))
    assert outcome.code == 0 and time.monotonic() - start >= 1 and "lest there be two" not in outcome.err


@kinds
def test_a_second_one_that_shows_up_later_is_told_and_left_alone(client, make, path, argv):
    """The first is listed two looks after the second was made: the last search sees it, one look would not."""
    client.account.late_lists = [NEVER]
    client.server.faults.append(Fault("POST", path, is_done=True, status=503))
    outcome = make(argv, SHORT)
    assert outcome.code == 1 and created_here(client, path) == 2
    kind = {"/pods": "pod", "/network-volumes": "vol", "/templates": "tpl"}[path]
    first, second = (f"{kind}000{number}" for number in (3, 4))
    assert f"({second})" in outcome.out and f"besides {second}, end those" in outcome.err
    assert first in outcome.err and MAY_EXIST not in outcome.err


def test_the_command_that_is_told_ends_the_second_pod(client, make):
    client.account.late_lists = [2]
    client.server.faults.append(Fault("POST", "/pods", is_done=True, status=503))
    assert "`python -m runpod down pod0003 --terminate`" in make(("pod", "up"), GLANCE).err
    assert client("down", "pod0003", "--terminate").code == 0 and list(client.account.pods) == ["pod0004"]


def test_of_two_that_were_not_confirmed_one_is_taken_and_the_other_told(client, make):
    client.server.faults += [Fault("POST", "/pods", is_done=True, cuts=True) for _ in range(2)]
    client.account.late_lists = [NEVER, 4]
    outcome = make(("pod", "up"), SHORT)
    assert outcome.code == 1 and "pod0003" in outcome.out and "down pod0004 --terminate" in outcome.err


@kinds
def test_after_the_last_request_the_user_reads_that_it_may_exist(client, make, path, argv):
    client.server.faults += [Fault("POST", path, cuts=True) for _ in range(9)]
    outcome = make(argv)
    assert outcome.code == 1 and len(client.server.sent("POST", path)) == creation.REQUESTS
    assert MAY_EXIST in outcome.err and ("status`" in outcome.err or path == "/templates")


@kinds
def test_one_that_only_the_last_look_shows_is_found(client, make, path, argv):
    client.server.faults += [Fault("POST", path, status=500) for _ in range(creation.REQUESTS - 1)]
    client.server.faults.append(Fault("POST", path, status=500, is_done=True))
    assert make(argv).code == 0 and len(client.server.sent("POST", path)) == creation.REQUESTS


@kinds
def test_a_plain_refusal_leaves_no_doubt(client, make, path, argv):
    client.server.faults.append(Fault("POST", path, status=422, detail="no"))
    outcome = make(argv)
    assert outcome.code == 1 and MAY_EXIST not in outcome.err and len(client.server.sent("POST", path)) == 1


def test_no_second_request_goes_out_when_the_list_cannot_be_read(client, make):
    faults = [Fault("GET", "/pods", content=b'{"pods": []}'), Fault("POST", "/pods", is_done=True, cuts=True)]
    client.server.faults += [*faults, Fault("GET", "/pods", status=403)]
    outcome = make(("pod", "up"))
    assert outcome.code == 1 and MAY_EXIST in outcome.err and len(client.server.sent("POST", "/pods")) == 1


def test_a_pod_stands_when_only_the_search_for_a_second_fails(client, make):
    client.server.faults += [Fault("GET", "/pods", content=b'{"pods": []}'), Fault("GET", "/pods", status=403)]
    outcome = make(("pod", "up"))
    assert outcome.code == 0 and "there may be a second pod vggt-quant" in outcome.err


def test_another_gpu_is_asked_for_only_after_one_more_look(client, make):
    """The first request was carried out, the second refused for lack of capacity; then the list shows the first."""
    client.account.late_lists = [2]
    client.server.faults += [Fault("POST", "/pods", is_done=True, status=500), Fault("POST", "/pods", status=400)]
    outcome = make(("pod", "up"), GLANCE)
    assert outcome.code == 0 and client.only_pod()["gpu"]["id"] == "NVIDIA GeForce RTX 4090"
    assert len(client.server.sent("POST", "/pods")) == 2


def test_a_pod_that_may_exist_is_told_when_no_gpu_can_be_had_after_it(client, make):
    client.account.late_lists = [NEVER]
    client.server.faults.append(Fault("POST", "/pods", is_done=True, status=500))
    client.server.faults += [Fault("POST", "/pods", status=400) for _ in range(4)]
    outcome = make(("pod", "up"))
    assert outcome.code == 1 and "can be had in EU-RO-1" in outcome.err and MAY_EXIST in outcome.err


def test_ctrl_c_during_the_request_tells_that_the_pod_may_exist(client):
    client.prepare()
    client.server.faults.append(Fault("POST", "/pods", is_done=True, hangs=True))
    command = [sys.executable, "-S", "-m", "runpod", "pod", "up"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not client.server.sent("POST", "/pods") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=30)
    assert process.returncode == 1 and "Traceback" not in printed
    assert f"a pod vggt-quant {MAY_EXIST}" in printed and "python -m runpod down vggt-quant" in printed
