"""A small Hugging Face Hub on 127.0.0.1, for tests of the download road over real HTTP.

It answers HEAD and GET on /{owner}/{name}/resolve/{revision}/{file} with the headers that huggingface_hub reads
(X-Repo-Commit, X-Linked-Etag, X-Linked-Size, Range), and misbehaves on request: cut connections, damaged bytes,
wrong announcements, error statuses. Weight files have their sha256 as ETag, as LFS files have; other files a sha1.
"""

import hashlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".pt", ".bin")


@dataclass
class Repo:
    """The files of one model and how the server mistreats whoever asks for them."""

    files: dict[str, bytes]
    status: int | None = None
    """Answer everything with this status and `error_code`."""
    error_code: str = ""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """For each file, how many bytes each of the next GETs sends before the connection breaks."""
    resets: set[str] = field(default_factory=set)
    """Files whose cuts are TCP resets."""
    damaged: set[str] = field(default_factory=set)
    """Files whose bytes arrive changed, in the same number."""
    announced_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that HEAD announces instead of the true ones."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):  # noqa: N802 - the name http.server calls
        self.answer(with_body=False)

    def do_GET(self):  # noqa: N802
        self.answer(with_body=True)

    def log_message(self, *args):
        """Stay silent."""

    def answer(self, *, with_body):
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repo = self.server.repos.get(match[1]) if match else None
        if repo is None:
            return self.refuse(404 if match else 400, "RepoNotFound")
        if repo.status is not None:
            return self.refuse(repo.status, repo.error_code)
        if match[2] not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if match[3] not in repo.files:
            return self.refuse(404, "EntryNotFound")
        return self.send_file(repo, match[3], with_body=with_body)

    def refuse(self, status, error_code):
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        if error_code == "bad token":
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        elif error_code:
            self.send_header("X-Error-Code", error_code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_file(self, repo, name, *, with_body):
        content = repo.files[name]
        large = name.endswith(LARGE)
        etag = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        if large:
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(repo.announced_sizes.get(name, len(content))))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.send_body(repo, name, content[start:])

    def send_body(self, repo, name, body):
        if name in repo.damaged:
            body = bytes(byte ^ 1 for byte in body)
        if repo.cuts.get(name):
            body = body[: repo.cuts[name].pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        if name in repo.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())  # at once: a shutdown would end the stream politely first


class HubServer(ThreadingHTTPServer):
    """Use as a context manager; `repos` may be changed at any time, `requests` records (method, path, range)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    def downloads(self, name):
        """The ranges of the GET requests for a file."""
        return [part for method, path, part in self.requests if method == "GET" and path.endswith(f"/{name}")]


def closed_endpoint():
    """An address at which nobody answers."""
    server = HubServer()
    server.server_close()
    return server.endpoint
