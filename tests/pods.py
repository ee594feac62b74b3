"""Pods for the tests of runpod/start.sh: the real script on a folder as its volume; RunPod's interface on 127.0.0.1.

Needs the package to be importable by this Python, as in the image.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = ROOT / "runpod" / "start.sh"
SECRETS = {
    "HF_TOKEN": "hf_secretOfTheHub",
    "RUNPOD_API_KEY": "rpa_secretKeyToThePod",
    "RUNPOD_SECRET_OTHER": "secretOfTheUser",
}

IMPOSSIBLE = [
    ("VGGT_RUN_NAME", "../up"),
    ("VGGT_RUN", "maybe"),
    ("VGGT_WHEN_BUSY", "run"),
    ("VGGT_HEARTBEAT_SECONDS", "0"),
    ("VGGT_STOP_SECONDS", "1.5"),
    ("VGGT_MAX_HOURS", "0.0"),
    ("VGGT_MAX_IMAGES", "all"),
    ("VGGT_AUTO_STOP_ON_FAILURE", "1"),
    ("VGGT_AUTO_STOP_RETRY_SECONDS", "-1"),
    ("VGGT_NO_LOG_SECONDS", "5 m"),
]
"""Values that client and start script refuse."""


class Pods:
    """Starts pods that share one volume, and ends them as a host does.

    Args:
        root: A folder for all that is not on the volume.
        volume: What the pods have for a volume: a folder of its own, or None for one in `root`.
    """

    def __init__(self, root, volume=None):
        self.root, self.volume, self.home = root, volume or root / "volume", root / "home"
        self.bin = root / "bin"
        for folder in (self.volume, self.home, self.bin):
            folder.mkdir(exist_ok=True)
        self.mark = f"TEST_MARK={uuid.uuid4()}"
        self.started = []

    def environment(self, name, settings):
        """What the container gets: nothing of this machine's own settings, no sleep at the end, quick heartbeats."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("VGGT_", "RUNPOD_", "HF_"))}
        return {
            **clean,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
            "RUNPOD_POD_ID": name,
            "VGGT_WORKSPACE": str(self.volume),
            "VGGT_PYTHON": sys.executable,
            "VGGT_PRE_START": str(self.root / "pre_start.sh"),
            "VGGT_POST_START": str(self.root / "post_start.sh"),
            "VGGT_LOGIN_PROFILE": str(self.home / "profile.sh"),
            "VGGT_LAST_COMMAND": "true",
            "VGGT_HEARTBEAT_SECONDS": "1",
            "VGGT_NO_LOG_SECONDS": "0.1",
            **dict([self.mark.split("=")]),
            **{key: str(value) for key, value in settings.items()},
        }

    def start(self, name, *before, **settings):
        """Start a pod; `before` is what its command line begins with."""
        pod = subprocess.Popen(
            [*before, "bash", START],
            env=self.environment(name, settings),
            cwd="/",
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.started.append(pod)
        return pod

    def run(self, name, *before, **settings):
        """Run it to its end; what it printed is `stdout`."""
        pod = self.start(name, *before, **settings)
        return subprocess.CompletedProcess(pod.args, stdout=pod.communicate(timeout=120)[0], returncode=pod.wait())

    def signal(self, name, number):
        """Send a signal to all processes of a pod at once."""
        for process in self.processes(f"RUNPOD_POD_ID={name}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self, pod, name):
        """Let a pod vanish, as with its host."""
        while any(self.processes(f"RUNPOD_POD_ID={name}")):
            self.signal(name, signal.SIGKILL)
        pod.communicate()

    def end_all(self):
        """End whatever a test left running."""
        while processes := list(self.processes()):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        for pod in self.started:
            pod.wait()
            pod.stdout.close()

    def processes(self, entry=None):
        """Ids of the processes that our pods started, of all or of those with this entry in their environment."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                entries = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                if self.mark in entries and (entry is None or entry in entries):
                    yield int(folder.name)

    def command_lines(self):
        """The words of each process of our pods, ended by zero bytes."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{process}/cmdline").read_text(errors="replace")

    def program(self, name, text):
        """Put a program into the pods' PATH."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def pretend_disk(self):
        """Let `stat` call every file system one on a disk, for the pods that come."""
        self.program("stat", '#!/bin/sh\n[ "$1" = -f ] && echo ext2/ext3 && exit\nPATH=/usr/bin:/bin exec stat "$@"\n')

    def files_with(self, text):
        """The files on volume and home that hold a text, in their names or inside."""
        files = [path for folder in (self.volume, self.home) for path in folder.rglob("*")]
        return [path for path in files if text in str(path) or (path.is_file() and text.encode() in path.read_bytes())]


@contextlib.contextmanager
def mounted_volume():
    """A folder in a mounted file system; None where this machine has none that all may write to.

    It is in memory, unlike a volume: see `Pods.pretend_disk`.
    """
    if not os.path.ismount("/dev/shm") or not os.access("/dev/shm", os.W_OK):
        yield None
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="vggt-quant-volume-") as folder:
        yield Path(folder)


def wait_until(condition, pod=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert pod is None or pod.poll() is None, f"the pod has ended: {pod.communicate()[0]}"
        time.sleep(0.02)


class RunPod(ThreadingHTTPServer):
    """The part of RunPod's interface that changes a pod's state: gives the answers it was told to, then 200.

    Like RunPod's, a good answer to `stop` holds the pod with its environment.

    Args:
        answers: The first answers.
        always: Answers to all others, by action.
    """

    def __init__(self, *answers, always=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.requests, self.command_lines = list(answers), [], []
        self.always = {"stop": 200, "terminate": 204, **(always or {})}
        self.url = f"http://127.0.0.1:{self.server_port}/v2"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                self.server.command_lines.append(path.read_text(errors="replace").replace("\0", " "))
        answers = self.server.answers
        self._answer(answers.pop(0) if answers else self.server.always[body["action"]])

    def _answer(self, code):
        content = b"" if code == 204 else json.dumps({"id": "pod1", "env": SECRETS}).encode()
        self.send_response(code)
        if code == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
