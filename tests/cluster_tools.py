"""The environment with Snakemake's cluster plugins, which lies beside that of the tests, and servers on loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

PYTHON = str(Path(sys.prefix) / "cluster" / "bin" / "python")


def missing(*modules):
    """Why a test that needs these modules of the cluster environment cannot run, or None."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}; see tests/install_cluster_tools.sh"
    for module in modules:
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        if subprocess.run([PYTHON, "-c", code]).returncode:
            return f"{module} is not installed in {PYTHON}; see tests/install_cluster_tools.sh"
    return None


def snakemake(project, *words, cwd=None, **environment):
    """Run the project's workflow in the cluster environment, to its end."""
    command = [PYTHON, "-P", "-m", "snakemake", "--snakefile", str(project.root / "workflow" / "Snakefile"), *words]
    return subprocess.run(
        command,
        cwd=cwd or project.run,
        env={**project.environment(**environment), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def profile(project, name):
    """The words that choose a profile of the workflow."""
    return ["--workflow-profile", str(project.root / "workflow" / "profiles" / name)]


@contextlib.contextmanager
def s3_server():
    """A server that speaks S3, on loopback and in memory; yields the environment in which Snakemake uses it."""
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "testing",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.terminate()
        server.wait()


def objects(environment, bucket):
    """Names and times of the objects in a bucket."""
    code = f"for o in s3.Bucket({bucket!r}).objects.all(): print(o.key, o.last_modified.isoformat())"
    return dict(line.rsplit(" ", 1) for line in _s3(environment, code).splitlines())


def put(environment, bucket, key, text):
    """Write an object; its bucket is made if need be."""
    code = f"s3.create_bucket(Bucket={bucket!r}); s3.Object({bucket!r}, {key!r}).put(Body={text!r}.encode())"
    _s3(environment, code)


def delete(environment, bucket, key):
    """Remove an object."""
    _s3(environment, f"s3.Object({bucket!r}, {key!r}).delete()")


def _s3(environment, code):
    client = (
        "import boto3, os; e = os.environ; s3 = boto3.resource('s3', region_name='us-east-1',"
        " endpoint_url=e['SNAKEMAKE_STORAGE_S3_ENDPOINT_URL'],"
        " aws_access_key_id='testing', aws_secret_access_key='testing')\n"
    )
    command = [PYTHON, "-c", client + code]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port} after {seconds} s")
