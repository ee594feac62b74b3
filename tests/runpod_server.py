"""RunPod's REST API v2 on 127.0.0.1, as far as our client uses it, for tests over real HTTP.

It checks the key, lets an account answer, and misbehaves on request (`faults`).
"""

import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from runpod_account import ProblemError, RunpodAccount


@dataclass
class Fault:
    """How the server mistreats the next request of this method and path."""

    method: str
    path: str
    status: int | None = None
    """Answer with this status instead."""
    detail: str = "out of order"
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    """Answer with these bytes and status 200 (or `status`) instead."""
    is_done: bool = False
    """Carry the request out before misbehaving."""
    hangs: bool = False
    """Send nothing for longer than any test waits."""
    cuts: bool = False
    """Close the connection without an answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        body = json.loads(raw) if raw else None
        self.server.requests.append((self.command, path, body))
        self.server.queries.append((path, dict(urllib.parse.parse_qsl(query)), self.headers))
        fault = self.server.take_fault(self.command, path)
        try:
            if fault is None or fault.is_done:
                answer = self.route(path, body)
            if fault is not None:
                return self.misbehave(fault)
            return self.send_lines() if answer == "lines" else self.send_answer(*answer)
        except ProblemError as problem:
            return self.send_problem(problem.status, problem.detail, problem.errors)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names http.server calls

    def log_message(self, *args):
        """Stay silent."""

    def misbehave(self, fault):
        if fault.hangs:
            self.server.is_closing.wait(10)
        if fault.hangs or fault.cuts:
            self.close_connection = True
        elif fault.content is not None:
            self.send_bytes(fault.status or 200, fault.content, "text/html", fault.headers)
        else:
            self.send_problem(fault.status, fault.detail, None, fault.headers)

    def route(self, path, body):
        if self.headers.get("Authorization") != f"Bearer {self.server.key}":
            raise ProblemError(401, "invalid bearer token")
        with self.server.lock:
            return self.server.account.answer(self.command, path, body)

    def send_answer(self, status, answer=None):
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_bytes(status, content, "application/json", {})

    def send_problem(self, status, detail, errors=None, headers=None):
        problem = {"title": "Problem", "status": status, "detail": detail, **({"errors": errors} if errors else {})}
        self.send_bytes(status, json.dumps(problem).encode(), "application/problem+json", headers or {})

    def send_bytes(self, status, content, kind, headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_lines(self):
        """Send the lines after Last-Event-ID (that one included, as RunPod may), then keep the stream open."""
        self.server.before_logs()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        start = self.headers.get("Last-Event-ID")
        for number, text in enumerate(self.server.lines):
            stamp = f"2026-06-01T12:00:{number:02}Z"
            identifier = f"{stamp}/{number:012}"
            if start is None or identifier >= start:
                data = json.dumps({"ts": stamp, "source": "container", "line": text})
                self.wfile.write(f"id: {identifier}\ndata: {data}\n\n".encode())
        while not self.server.is_closing.wait(0.1):
            self.wfile.write(b": still here\n\n")


class RunpodServer(ThreadingHTTPServer):
    """Use as a context manager; `account` may be changed at any time, `requests` records (method, path, body)."""

    daemon_threads = True

    def __init__(self, key="rpa_TESTKEY0123456789"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = key
        self.url = f"http://127.0.0.1:{self.server_port}/v2"
        self.account = RunpodAccount()
        self.faults, self.requests, self.queries, self.lines = [], [], [], []
        self.before_logs = lambda: None
        """Called at each request for logs."""
        self.lock, self.is_closing = threading.RLock(), threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.is_closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    def take_fault(self, method, path):
        for fault in self.faults:
            if fault.method == method and f"/v2{fault.path}" == path:
                self.faults.remove(fault)
                return fault
        return None

    def sent(self, method, path):
        """The bodies of the requests of this method and path."""
        return [body for verb, where, body in self.requests if (verb, where) == (method, f"/v2{path}")]
