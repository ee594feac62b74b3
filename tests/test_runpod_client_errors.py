"""`python -m runpod` when RunPod or the network misbehaves: what is repeated, what is not, and what the user reads."""

import dataclasses
import ssl
import time
import urllib.error

import pytest
from runpod_server import Fault, RunpodServer
from runpod_session import FAST, open_session

from runpod.client import api as http
from runpod.client.errors import RunpodError


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys)


def error_of(outcome):
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    return line


def test_without_a_key_the_user_reads_how_to_set_it(client, monkeypatch):
    monkeypatch.delenv("RUNPOD_API_KEY")
    outcome = client("status")
    assert outcome.code == 2 and "RUNPOD_API_KEY is not set" in error_of(outcome)


def test_a_wrong_key_is_refused_once_and_explained(client, monkeypatch):
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong")
    outcome = client("status")
    assert outcome.code == 1 and "401" in error_of(outcome) and "set RUNPOD_API_KEY" in error_of(outcome)
    assert len(client.server.requests) == 1


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "quote'", "ключ"])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(client, monkeypatch, key):
    monkeypatch.setenv("RUNPOD_API_KEY", key)
    outcome = client("status")
    assert outcome.code == 2 and key not in outcome.err and not client.server.requests


def test_the_key_travels_encrypted_only(client, monkeypatch):
    monkeypatch.setenv("VGGT_RUNPOD_URL", "http://api.example.org/v2")
    outcome = client("status")
    assert outcome.code == 2 and "use https" in error_of(outcome)


def test_the_key_does_not_follow_a_redirect(client):
    with RunpodServer() as other:
        client.server.faults.append(Fault("GET", "/pods", status=302, headers={"Location": f"{other.url}/pods"}))
        outcome = client("status")
    assert outcome.code == 1 and "302" in error_of(outcome) and not other.requests


def test_field_errors_of_the_server_reach_the_user(client, tmp_path):
    (tmp_path / "template.json").write_text('{"name": "a", "image": "b", "imagee": "c", "disk": 0}')
    outcome = client("template", "apply", "--template-file", str(tmp_path / "template.json"))
    assert outcome.code == 1 and "$: additional properties 'imagee' not allowed" in error_of(outcome)
    assert "$.disk: must be number" in error_of(outcome)


@pytest.mark.parametrize(("status", "words"), [(403, "permission"), (404, "does not find"), (418, "unexpected status")])
def test_other_refusals_are_not_repeated(client, status, words):
    client.server.faults.append(Fault("GET", "/templates", status=status, detail="because"))
    outcome = client("template", "apply", "--image", "i")
    assert outcome.code == 1 and f"{status}, because" in error_of(outcome) and words in error_of(outcome)
    assert len(client.server.requests) == 1


def test_a_bad_transition_is_told(client):
    client.prepare()
    client("pod", "up")
    client.server.faults.append(Fault("POST", "/pods/pod0003/action", status=409, detail="pod is locked"))
    outcome = client("down", "--stop")
    assert outcome.code == 1 and "409, pod is locked" in error_of(outcome)


def test_a_pod_that_someone_else_stopped_meanwhile_is_stopped(client):
    client.prepare()
    client("pod", "up")
    # The stop is carried out, its answer is lost, and the repeat meets a pod that has exited: 409.
    client.server.faults.append(Fault("POST", "/pods/pod0003/action", is_done=True, cuts=True))
    outcome = client("down", "--stop")
    assert outcome.code == 0 and "is stopped" in outcome.out
    assert len(client.server.sent("POST", "/pods/pod0003/action")) == 2


def test_a_pod_that_someone_else_terminated_meanwhile_is_terminated(client):
    client.prepare()
    client("pod", "up")
    client.server.faults.append(Fault("DELETE", "/pods/pod0003", is_done=True, status=503))
    outcome = client("down")
    assert outcome.code == 0 and "Terminated" in outcome.out and not client.account.pods


def test_retry_after_is_honoured(client):
    client.server.faults.append(Fault("GET", "/pods", status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    assert client("status").code == 0
    assert time.monotonic() - start >= 1


def test_too_many_requests_without_a_time_to_wait_name_none(client):
    client.server.faults += [Fault("GET", "/pods", status=429) for _ in range(9)]
    assert "try again in some minutes" in error_of(client("status"))


def test_a_request_that_was_sent_once_is_not_said_to_have_failed_more_often(client):
    client.prepare()
    client.server.faults += [Fault("POST", "/pods", status=500) for _ in range(9)]
    outcome = client("pod", "up")
    assert "again and again" not in error_of(outcome) and "RunPod failed at POST /pods (500" in error_of(outcome)


def test_a_long_retry_after_is_told_and_not_waited_for(client):
    client.server.faults.append(Fault("GET", "/pods", status=429, headers={"Retry-After": "7200"}))
    outcome = client("status")
    assert outcome.code == 1 and "try again in 7200 s" in error_of(outcome)


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"cuts": True}, {"hangs": True}])
def test_reading_is_repeated_with_growing_waits(client, fault):
    client.server.faults += [Fault("GET", "/pods", **fault), Fault("GET", "/pods", **fault)]
    start = time.monotonic()
    assert client("status", "--timeout", "0.2", pace=dataclasses.replace(FAST, backoff_s=0.1)).code == 0
    assert time.monotonic() - start >= 0.1 + 0.2
    assert len(client.server.sent("GET", "/pods")) == 3


def test_repeats_end(client):
    client.server.faults += [Fault("GET", "/pods", status=500, detail="upstream") for _ in range(9)]
    outcome = client("status")
    assert outcome.code == 1 and "500, upstream" in error_of(outcome)
    assert len(client.server.sent("GET", "/pods")) == http.ATTEMPTS


def test_nobody_listens(client, monkeypatch):
    with RunpodServer() as gone:
        url = gone.url
    monkeypatch.setenv("VGGT_RUNPOD_URL", url)
    outcome = client("status")
    assert outcome.code == 1 and f"{url} cannot be reached" in error_of(outcome)


def test_a_server_without_a_known_certificate_is_not_trusted(client, monkeypatch):
    monkeypatch.setenv("VGGT_RUNPOD_URL", client.server.url.replace("http:", "https:"))
    outcome = client("status")
    assert outcome.code == 1 and "cannot be reached" in error_of(outcome) and not client.server.requests


@pytest.mark.parametrize("content", [b"<html>Sign in</html>", b"\xff\xfe", b"{"])
def test_an_answer_that_is_no_json_is_told(client, content):
    client.server.faults.append(Fault("GET", "/pods", content=content))
    outcome = client("status")
    assert outcome.code == 1 and "no JSON" in error_of(outcome)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"pods": {}}', b'{"pods": [{"name": "x"}]}', b"", b"null"])
def test_an_answer_of_another_form_is_told(client, content):
    client.server.faults.append(Fault("GET", "/pods", content=content))
    outcome = client("status")
    assert outcome.code == 1 and "interface may have changed" in error_of(outcome)


def test_an_error_page_of_a_gateway_is_told_by_its_status(client):
    client.server.faults.append(Fault("GET", "/pods", status=404, content=b"<html>"))
    assert "(404, Not Found)" in error_of(client("status"))


def test_an_id_cannot_escape_from_its_path(client):
    with pytest.raises(RunpodError, match="404"):
        http.from_environment(timeout_s=5, pace=FAST).get(f"/pods/{http.quoted('../templates?x')}")
    assert client.server.requests[-1][1] == "/v2/pods/../templates?x"


def test_a_tls_failure_leaves_open_what_was_done_only_after_the_request_was_sent(client):
    """urllib wraps in URLError what goes wrong until then, a certificate that is not trusted for one."""
    connection, cause = http.from_environment(timeout_s=5, pace=FAST), ssl.SSLEOFError("EOF occurred")
    assert connection._unreached(cause, "POST /pods", 5).may_be_done
    assert not connection._unreached(urllib.error.URLError(cause), "POST /pods", 5).may_be_done
