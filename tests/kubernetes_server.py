"""A stand-in for a Kubernetes API server, on loopback: it keeps what it is sent, and says that each job has failed."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

FAILED = {"failed": 1, "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}


class KubernetesServer(ThreadingHTTPServer):
    """The jobs and secrets that were created, as their manifests."""

    def __init__(self):
        self.jobs, self.secrets = [], []
        super().__init__(("127.0.0.1", 0), _Handler)

    def kubeconfig(self, path):
        """Write the file by which clients find this server; returns its path."""
        named = {"name": "here"}
        path.write_text(
            yaml.safe_dump(
                {
                    **{"apiVersion": "v1", "kind": "Config", "current-context": "here"},
                    "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
                    "contexts": [{**named, "context": {"cluster": "here", "user": "here"}}],
                    "users": [{**named, "user": {"token": "none"}}],
                }
            )
        )
        return str(path)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kept = {"jobs": self.server.jobs, "secrets": self.server.secrets}[self.path.rpartition("/")[2]]
        kept.append(manifest)
        self._answer(201, manifest)

    def do_GET(self):
        if self.path.partition("?")[0].endswith("/pods"):
            return self._answer(200, {"kind": "PodList", "items": []})
        name = self.path.partition("?")[0].removesuffix("/status").rpartition("/")[2]
        job = next(job for job in self.server.jobs if job["metadata"]["name"] == name)
        return self._answer(200, {**job, "status": FAILED})

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _answer(self, code, thing):
        body = json.dumps(thing).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@contextlib.contextmanager
def kubernetes_server():
    """Run it while the block runs."""
    with KubernetesServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
