"""Tensor files that detect damage: safetensors with a manifest and checksums in the header.

The header has one metadata entry, `vggt_quant`, in JSON: the writer's manifest, and

    crc32            tensor -> checksum of its dtype, shape and bytes
    manifest_crc32   checksum of all else in the entry

safetensors detects a truncated file, but not flipped bits. There is one entry, because safetensors writes several in
random order, and equal content must give equal files.

A process compares all checksums of a file when it first reads it, and again if the file's size, times or inode have
changed. Otherwise header and checksums are not read again, so a load that is timed after `read_tensors` or `check`
contains no checking. A file that changed less than a second ago is checked every time, because a second change might
leave it the same time stamp.
"""

import json
import os
import time
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vggt_quant.results.files import whole

ENTRY = "vggt_quant"
CHECKSUMS = ("crc32", "manifest_crc32")
SETTLED_SECONDS = 1.0
"""A file that has not changed for this long gets another time when it changes; coarse disks count in seconds."""

Stamp = tuple[str, int, int, int, int]
"""(path, size, time of change of content and of status in ns, inode): another one after every change."""

_sound: set[Stamp] = set()
"""The files of which this process has compared every checksum."""


class TensorFileError(ValueError):
    """A file that is not there, damaged or foreign; the sentence names it and the cure."""


def write_tensors(tensors: dict[str, Tensor], path: Path | str, manifest: dict[str, Any] | None = None) -> None:
    """Write a file whole or not at all.

    Args:
        tensors: Contiguous, on the CPU, no two of them in the same memory.
        path: The file to make or replace.
        manifest: Anything that JSON can hold.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path, manifest = Path(path), manifest or {}
    assert not set(CHECKSUMS) & set(manifest)
    manifest = {**manifest, "crc32": {name: _crc32(tensor) for name, tensor in tensors.items()}}
    entry = json.dumps({**manifest, "manifest_crc32": _manifest_crc32(manifest)})
    try:
        with whole(path) as temporary:
            save_file(tensors, temporary, metadata={ENTRY: entry})
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}; is the disk full?") from error


def has_manifest(path: Path | str) -> bool:
    """Whether `path` is a safetensors file with a manifest in its header; whether that is sound, reading will tell."""
    try:
        return _entry(path) is not None
    except TensorFileError:
        return False


def read_manifest(path: Path | str) -> Mapping[str, Any]:
    """What the writer said about the file, its checksums included; parsed and checked once, so it is not to be changed.

    Raises:
        TensorFileError: Missing, damaged or foreign.
    """
    stamp = _stamp(path)
    return _remembered_manifest(stamp) if stamp else _manifest(path)


@lru_cache(maxsize=16)
def _remembered_manifest(stamp: Stamp) -> Mapping[str, Any]:
    return _manifest(stamp[0])


def _manifest(path: Path | str) -> Mapping[str, Any]:
    entry = _entry(path)
    if entry is None:
        raise TensorFileError(
            f"{path} is no packed checkpoint or other file of vggt_quant: its header has no {ENTRY!r} entry."
        )
    try:
        manifest = json.loads(entry)
        said = manifest.pop("manifest_crc32")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise TensorFileError(f"{path} is damaged: its manifest cannot be read ({error!r}); make it again.") from error
    if said != _manifest_crc32(manifest) or not isinstance(manifest.get("crc32"), dict):
        raise TensorFileError(f"{path} is damaged: its manifest does not match its checksum; make it again.")
    return MappingProxyType(manifest)


def check(path: Path | str) -> None:
    """Compare every checksum of the file, unless this process has done so since the file changed.

    Raises:
        TensorFileError: Missing, damaged or foreign.
    """
    if _stamp(path) not in _sound:
        read_tensors(path, "meta")


def read_tensors(path: Path | str, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Every tensor of the file, compared with its checksum where this process has not done so yet.

    Raises:
        TensorFileError: Missing, damaged or foreign.
    """
    stamp, crc32 = _stamp(path), read_manifest(path)["crc32"]
    tensors = {}
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(crc32):
            raise TensorFileError(f"{path} is damaged: its tensors are not those of its manifest; make it again.")
        for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            tensor = file.get_tensor(name)
            if stamp not in _sound and _crc32(tensor) != crc32[name]:
                raise TensorFileError(f"{path} is damaged: {name} does not match its checksum; make it again.")
            tensors[name] = tensor.to(device)
    if stamp:
        _sound.add(stamp)
    return tensors


def tensor_bytes(path: Path | str) -> dict[str, int]:
    """Bytes on disk of every tensor of a sound safetensors file, from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {k: v["data_offsets"][1] - v["data_offsets"][0] for k, v in header.items() if k != "__metadata__"}


def _stamp(path: Path | str) -> Stamp | None:
    """A stamp that changes with the file's content; None if the file is too new for that, or missing."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    is_settled = time.time() - max(about.st_mtime, about.st_ctime) > SETTLED_SECONDS
    name = os.path.abspath(path)
    return (name, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino) if is_settled else None


def _entry(path: Path | str) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(ENTRY)
    except (OSError, SafetensorError) as error:
        raise TensorFileError(f"{path} cannot be read as a safetensors file ({error}); make it again.") from error


def _manifest_crc32(manifest: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _crc32(tensor: Tensor) -> int:
    start = zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, start) if tensor.numel() else start
