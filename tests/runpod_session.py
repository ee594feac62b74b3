"""Our RunPod client run in this process against a server of the test's own."""

from dataclasses import dataclass

import pytest
from runpod_server import RunpodServer

from runpod.client.api import Pace
from runpod.client.cli import main

FAST = Pace(backoff_s=0.01, listing_s=0.05, poll_s=0.01)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@dataclass
class Session:
    """Call it with the arguments of `python -m runpod`."""

    server: RunpodServer
    capsys: pytest.CaptureFixture

    def __call__(self, *argv, pace=FAST):
        try:
            code = main(argv, pace=pace)
        except SystemExit as stop:
            code = stop.code
        return Outcome(code, *self.capsys.readouterr())

    @property
    def account(self):
        return self.server.account

    def prepare(self, size=50):
        """Make the template and the volume that a pod needs."""
        assert self("template", "apply", "--image", "ghcr.io/me/vggt_quant:0.1.0").code == 0
        assert self("volume", "create", "--size", str(size)).code == 0

    def only_pod(self):
        (pod,) = self.account.pods.values()
        return pod


def open_session(monkeypatch, capsys, key="rpa_TESTKEY0123456789"):
    """Yield a session; `yield from` it in a fixture."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with RunpodServer(key) as server:
        monkeypatch.setenv("RUNPOD_API_KEY", server.key)
        monkeypatch.setenv("VGGT_RUNPOD_URL", server.url)
        yield Session(server, capsys)
