"""Tensor files: equal content makes equal bytes, and no damage goes unnoticed."""

import json
import os
import resource
import struct
import time

import pytest
import torch
from safetensors.torch import save_file

from vggt_quant.runtime import tensor_file
from vggt_quant.runtime.tensor_file import (
    TensorFileError,
    check,
    has_manifest,
    read_manifest,
    read_tensors,
    tensor_bytes,
    write_tensors,
)

TENSORS = {
    "a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "a.packed": torch.arange(5, dtype=torch.uint8),
    "scalar": torch.tensor(3.0, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
}


@pytest.fixture
def path(tmp_path):
    write_tensors(TENSORS, tmp_path / "x.safetensors", {"layers": {"a": 1}})
    return tmp_path / "x.safetensors"


def is_refused(path, content):
    path.write_bytes(content)
    try:
        read_tensors(path)
    except TensorFileError as error:
        return str(path) in str(error)
    return False


def test_tensors_and_manifest_survive(path):
    again = read_tensors(path)
    assert again.keys() == TENSORS.keys()
    assert all(torch.equal(again[name], t) and again[name].dtype == t.dtype for name, t in TENSORS.items())
    assert read_manifest(path)["layers"] == {"a": 1}
    assert tensor_bytes(path) == {name: tensor.nbytes for name, tensor in TENSORS.items()}


def test_equal_content_makes_equal_files(path):
    first = path.read_bytes()
    for _ in range(10):
        write_tensors(TENSORS, path, {"layers": {"a": 1}})
        assert path.read_bytes() == first


def test_a_flipped_bit_is_refused_wherever_it_is(path):
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        assert is_refused(path, bad), position


def test_a_file_cut_short_is_refused_wherever_it_is_cut(path):
    good = path.read_bytes()
    assert all(is_refused(path, good[:end]) for end in range(len(good)))
    assert is_refused(path, good + b"x")


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused(path, length):
    assert is_refused(path, struct.pack("<Q", length) + path.read_bytes()[8:])


@pytest.mark.parametrize(
    "entry", ["", "nul", "[1]", "{}", '{"crc32": 3, "manifest_crc32": 3}', '{"manifest_crc32": {}}']
)
def test_a_header_with_another_manifest_is_refused(path, entry):
    header = json.dumps({"__metadata__": {"vggt_quant": entry}}).encode()
    assert is_refused(path, struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("header", [b"[]", b'"a"', b"\xff\xfe{}", b'{"__metadata__": 3}', b'{"a": {}}', b"{}"])
def test_a_header_that_is_none_is_refused(path, header):
    assert is_refused(path, struct.pack("<Q", len(header)) + header)


@pytest.fixture
def work(monkeypatch):
    """What is gone through: "header" or "checksum", once each time."""
    done = []

    def counted(name, function):
        def call(*arguments):
            done.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(tensor_file, "_manifest_crc32", counted("header", tensor_file._manifest_crc32))
    monkeypatch.setattr(tensor_file, "_crc32", counted("checksum", tensor_file._crc32))
    return done


def test_a_process_goes_through_header_and_checksums_of_a_file_once(path, work, monkeypatch):
    monkeypatch.setattr(tensor_file, "SETTLED_SECONDS", -1)
    check(path)
    assert work == ["header", *["checksum"] * len(TENSORS)]
    again = read_tensors(path)
    assert read_manifest(path)["layers"] == {"a": 1}
    check(str(path))
    assert len(work) == 1 + len(TENSORS)
    assert all(torch.equal(again[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("keep_time", [False, True])
def test_damage_after_the_file_was_checked_is_found_even_under_its_old_time(path, work, monkeypatch, keep_time):
    monkeypatch.setattr(tensor_file, "SETTLED_SECONDS", -1)
    check(path)
    before, good = path.stat(), path.read_bytes()
    time.sleep(0.02)  # a tick of the disk's clock
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for read in (read_tensors, check):
        with pytest.raises(TensorFileError, match="does not match its checksum"):
            read(path)
    path.write_bytes(good)
    check(path)


def test_a_file_that_has_just_been_written_is_checked_each_time(path, work):
    for _ in range(2):
        read_tensors(path)
    assert work.count("checksum") == 2 * len(TENSORS)


def test_a_folder_a_missing_file_and_a_foreign_one_are_refused(path, tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign")
    for other in (tmp_path, tmp_path / "nothing", tmp_path / "foreign"):
        assert not has_manifest(other)
        with pytest.raises(TensorFileError, match=str(other)):
            read_manifest(other)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(path):
    before = path.read_bytes()
    shared = torch.zeros(8)
    with pytest.raises(RuntimeError, match="share memory"):
        write_tensors({"a": shared, "b": shared}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_that_breaks_off_in_the_middle_leaves_nothing(tmp_path):
    """A limit on the size of files breaks a write where a full disk would."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(OSError, match=r"x\.safetensors could not be written"):
            write_tensors({"a": torch.zeros(10_000)}, tmp_path / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert list(tmp_path.iterdir()) == []
