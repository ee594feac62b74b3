"""Neither the API key nor a variable that holds a secret shows in anything that `python -m runpod` prints."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runpod_server import Fault, RunpodServer
from runpod_session import FAST, open_session

from runpod.client import api, logs
from runpod.client.errors import RunpodError

ROOT = Path(__file__).parent.parent
KEY = "rpa_S3CRETS3CRETS3CRET"
TOKEN = "hf_abcdefghijklmnop"


def run(server, *argv, **env):
    """A process of its own, so that all it prints is seen, tracebacks included."""
    variables = {"RUNPOD_API_KEY": KEY, "VGGT_RUNPOD_URL": server.url, "PATH": os.environ["PATH"], **env}
    command = [sys.executable, "-S", "-m", "runpod", *argv]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def server():
    with RunpodServer(KEY) as server:
        yield server


@pytest.fixture
def client(monkeypatch, capsys):
    yield from open_session(monkeypatch, capsys, KEY)


def echo(detail=f"got Bearer {KEY}", status=400):
    return {"status": status, "detail": detail}


COMMANDS = [
    ("template", "apply", "--image", "i"),
    ("volume", "create"),
    ("pod", "up", "--env", f"HF_TOKEN={TOKEN}"),
    ("status",),
    ("gpus",),
    ("down", KEY),
    ("down",),
    ("pod", "up", "--dry-run", "--env", f"ANY={KEY}", "--env", f"HF_TOKEN={TOKEN}"),
]


def test_a_whole_session_with_debug_shows_no_secret(server):
    for argv in COMMANDS:
        result = run(server, *argv, "--debug")
        printed = result.stdout + result.stderr
        assert result.returncode == 0 and "Traceback" not in printed, printed
        assert KEY not in printed and TOKEN not in printed
    # The requests were logged, and the key did travel: the server accepts no other.
    assert "DEBUG runpod.client.api: GET" in run(server, "status", "--debug").stderr


FAULTS = [
    echo(),
    echo(status=401),
    echo(status=422),
    echo(status=404),
    {"content": f"<html>{KEY}".encode()},
    {"content": json.dumps({"pods": KEY}).encode()},
    {"content": json.dumps({"pods": [{"id": KEY, "name": KEY, "status": KEY}]}).encode()},
]


@pytest.mark.parametrize(("fault", "argv"), [*itertools.product(FAULTS, [("status",), ("down",), ("pod", "up")])])
def test_a_server_that_sends_the_key_back_does_not_get_it_printed(client, caplog, fault, argv):
    client.server.faults += [Fault("GET", "/pods", **fault) for _ in range(3)]
    with caplog.at_level("DEBUG"):
        outcome = client(*argv, "--debug")
    assert KEY not in outcome.out + outcome.err + caplog.text and "GET" in caplog.text


@pytest.mark.parametrize("fault", [*FAULTS[:5], echo(status=503)])
def test_the_key_is_in_no_exception_and_no_log(client, caplog, fault):
    client.server.faults += [Fault("GET", "/pods", **fault) for _ in range(9)]
    with caplog.at_level("DEBUG"), pytest.raises(RunpodError) as caught:
        api.from_environment(timeout_s=5, pace=FAST).items("/pods", "pods")
    error = caught.value
    while error is not None:
        assert KEY not in str(error) + repr(vars(error))
        error = error.__cause__
    assert KEY not in caplog.text


def test_a_key_in_an_impossible_form_is_not_shown(server):
    result = run(server, "status", "--debug", RUNPOD_API_KEY=f"{KEY}\nX-Header: 1")
    assert result.returncode == 2 and KEY not in result.stdout + result.stderr


@pytest.mark.parametrize("argv", [("--env", TOKEN), ("--secret", f"HF_TOKEN={TOKEN}-x"), ("--env", f"={TOKEN}")])
def test_a_secret_in_the_wrong_place_is_not_repeated(server, argv):
    result = run(server, "pod", "up", *argv)
    assert result.returncode == 2 and TOKEN not in result.stdout + result.stderr


def test_a_dry_run_masks_secrets_shows_references_and_warns(server):
    result = run(server, "pod", "up", "--dry-run", "--env", f"MY_API_KEY={TOKEN}", "--secret", "HF_TOKEN=hf")
    env = json.loads(result.stdout)["env"]
    assert env["MY_API_KEY"] == "***" and env["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf }}"
    assert "warning: MY_API_KEY will be readable" in result.stderr and "HF_TOKEN will" not in result.stderr


def test_log_lines_with_the_key_are_cleaned(client, capsys):
    client.prepare()
    client("pod", "up")
    client.server.lines = [f"RUNPOD_API_KEY={KEY}", "done"]
    logs.show(api.from_environment(timeout_s=5, pace=FAST), "vggt-quant", follow=False, tail=9, silence_s=0.3)
    out = capsys.readouterr().out
    assert "done" in out and "RUNPOD_API_KEY=***" in out and KEY not in out


def test_the_key_is_not_in_the_repr_of_the_connection(client):
    assert KEY not in repr(api.from_environment(timeout_s=1, pace=FAST))
