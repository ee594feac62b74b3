"""A file server on 127.0.0.1 for tests of downloads over real HTTP, and ETH3D archives in their true layout to serve.

It answers GET with ETag, Last-Modified, Range and If-Range as a good server does, and misbehaves on request: cut or
reset or silent connections, damaged bytes, wrong lengths, error statuses, no ranges, no validators.
"""

import hashlib
import io
import re
import socket
import struct
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import py7zr
from PIL import Image

DATE = "Tue, 15 Nov 2022 12:45:26 GMT"


@dataclass
class File:
    """What is served under a name, and how."""

    content: bytes
    etag: str | None = "of the content"
    """The ETag as sent; by default a strong one that changes with the content."""
    last_modified: str | None = DATE
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers that the next requests get instead of the file."""
    cuts: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before the connection breaks."""
    ending: str = "close"
    """How a cut ends: close, reset or silence."""
    damaged: int = 0
    """How many of the next answers carry changed bytes."""
    understands_range: bool = True
    understands_if_range: bool = True
    longest_part: int | None = None
    """How many bytes a partial answer holds at most."""
    announced_length: int | None = None
    """The Content-Length of whole answers, instead of the true one."""
    is_chunked: bool = False
    """Sent without a Content-Length."""

    @property
    def validator(self):
        return f'"{hashlib.sha1(self.content).hexdigest()}"' if self.etag == "of the content" else self.etag


@dataclass
class Request:
    """A request that was answered."""

    name: str
    range: str | None
    if_range: str | None
    status: int
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Stay silent."""

    def do_GET(self):  # noqa: N802 - the name http.server calls
        name = self.path.rpartition("/")[2]
        file = self.server.files.get(name)
        if file is None or file.answers:
            status, headers = file.answers.pop(0) if file else (404, {})
            return self.head(name, status, {**headers, "Content-Length": "0"})
        start = self.start(file)
        headers = {"ETag": file.validator, "Last-Modified": file.last_modified}
        length = len(file.content) - start
        if start:
            length = min(length, file.longest_part or length)
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{len(file.content)}"
        elif file.announced_length is not None:
            length = file.announced_length
        if not file.is_chunked:
            headers["Content-Length"] = str(length)
        record = self.head(name, 206 if start else 200, headers)
        return self.body(file, record, file.content[start : start + length])

    def start(self, file):
        """The first byte that the client gets."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not file.understands_range:
            return 0
        same = self.headers.get("If-Range") in (None, file.validator, file.last_modified)
        return int(asked[1]) if same or not file.understands_if_range else 0

    def head(self, name, status, headers):
        record = Request(name, self.headers.get("Range"), self.headers.get("If-Range"), status)
        self.server.requests.append(record)
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        return record

    def body(self, file, record, content):
        if file.damaged:
            file.damaged -= 1
            content = content[:-1000] + bytes(byte ^ 1 for byte in content[-1000:])
        is_cut = bool(file.cuts)
        if is_cut:
            content = content[: file.cuts.pop(0)]
        record.sent = len(content)  # Before the client can have them.
        self.wfile.write(content)
        if is_cut or file.announced_length is not None:
            self.close_connection = True
        if is_cut and file.ending == "silence":
            self.server.released.wait(30)
        if is_cut and file.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())


class ArchiveServer(ThreadingHTTPServer):
    """Use as a context manager; `files` may be changed at any time, `requests` records what was asked and sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/data"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    def asked(self, name):
        """The requests for a file."""
        return [request for request in self.requests if request.name == name]


def scene_archives(scene):
    """The four archives of a scene, by name; photos and depth are noise, so that they stay large enough to be cut."""
    random = np.random.default_rng(0)
    photos = {f"DSC_{number:04}": _photo(random) for number in (286, 287, 288)}
    cameras = {f"{name}.txt": f"# {name}\n".encode() for name in ("cameras", "images", "points3D")}
    depth = {f"{name}.JPG": random.random((24, 36), np.float32).tobytes() for name in photos}
    trees = {
        "dslr_undistorted": {
            "images/dslr_images_undistorted": {f"{name}.JPG": photo for name, photo in photos.items()},
            "dslr_calibration_undistorted": cameras,
        },
        "dslr_jpg": {
            "images/dslr_images": {f"{name}.JPG": _photo(random) for name in photos},
            "dslr_calibration_jpg": cameras,
        },
        "dslr_depth": {"ground_truth_depth/dslr_images": depth},
        "dslr_occlusion": {
            "masks_for_images/dslr_images": {f"{name}.png": b"\x89PNG" for name in photos},
            "occlusion": {"splats.ply": b"ply\n"},
        },
    }
    return {f"{scene}_{suffix}.7z": archive(_flat(scene, tree)) for suffix, tree in trees.items()}


def archive(members, *, rename=None, links=None):
    """A 7z archive of bytes by path, made from real files, so that it has folders as members too.

    Args:
        members: The files.
        rename: What the archive is to say instead of some paths.
        links: Symbolic links by path, with what they point to.
    """
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(buffer, "w") as result:
        for path, content in members.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        for path, target in (links or {}).items():
            (Path(folder) / path).symlink_to(target)
        for top in Path(folder).iterdir():
            result.writeall(top, top.name)
        for entry in result.files.files_list:
            entry["filename"] = (rename or {}).get(entry["filename"], entry["filename"])
    return buffer.getvalue()


def members_of(content):
    """The files in an archive, by path."""
    with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(io.BytesIO(content)) as opened:
        opened.extractall(folder)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _flat(scene, tree):
    return {f"{scene}/{folder}/{name}": content for folder, files in tree.items() for name, content in files.items()}


def _photo(random):
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (240, 360, 3), np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
