"""Helpers of the tests that watch real processes."""

import contextlib
import os
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-P", "-m", "vggt_quant"]

DRIVER = """#!/bin/sh
case "$1" in
  *index*) printf '0\\n1\\n' ;;
  *name*) printf 'First GPU\\nSecond GPU\\n' ;;
esac
"""


def install_driver(folder):
    """Put a stand-in for `nvidia-smi` into a folder for PATH: it lists two GPUs, whatever the machine has."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(DRIVER)
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def worker_of(parent):
    """The process id of a process's Python child (its others are `nvidia-smi`), once it has become itself."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    for _ in range(400):
        for child in map(int, children.read_text().split()):
            if words_of(child)[:1] == [sys.executable] and _self(child) != _self(parent.pid):
                return child
        time.sleep(0.025)
    raise AssertionError("the job started no worker")


def words_of(process_id):
    """The command line of a process; empty when it has gone."""
    return _read(process_id, "cmdline")


def environment_of(process_id):
    """The environment that a process was started with."""
    return dict(entry.split("=", 1) for entry in _read(process_id, "environ"))


def has_ended(process_id):
    stat = Path(f"/proc/{process_id}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def _self(process_id):
    return words_of(process_id), environment_of(process_id)


def _read(process_id, file):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [word for word in Path(f"/proc/{process_id}/{file}").read_bytes().decode().split("\0") if word]
    return []
