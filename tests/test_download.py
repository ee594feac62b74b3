"""One file over real HTTP from a server that cuts, lies, stalls, changes its mind or is not there."""

import datetime
import email.utils
import hashlib
import random
import shutil
from collections import namedtuple

import pytest
from archive_server import ArchiveServer, File

from vggt_quant.data.fetch import download
from vggt_quant.data.fetch.download import CHUNK_BYTES, DamagedError, FetchError, fetch_checked

CONTENT = random.Random(0).randbytes(5 * CHUNK_BYTES + 1234)
CUT = 2 * CHUNK_BYTES  # What has arrived in whole chunks is kept.
NAME = "file.7z"


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between tries, which are not made."""
    made = []
    monkeypatch.setattr("time.sleep", made.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return made


@pytest.fixture
def server(pauses):
    with ArchiveServer() as running:
        running.files[NAME] = File(CONTENT)
        yield running


def get(server, folder, name=NAME):
    download.download(f"{server.url}/{name}", folder / name, cure="check the network")
    return (folder / name).read_bytes()


def ranges(server):
    return [request.range for request in server.requests]


def left_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_whole_and_nothing_is_left_beside_it(server, tmp_path):
    assert get(server, tmp_path) == CONTENT
    assert left_in(tmp_path) == {NAME}
    assert get(server, tmp_path) == CONTENT
    assert len(server.requests) == 1


def test_a_cut_connection_is_resumed_and_no_byte_is_sent_twice(server, tmp_path):
    server.files[NAME].cuts = [CUT, CHUNK_BYTES]
    assert get(server, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={CUT}-", f"bytes={CUT + CHUNK_BYTES}-"]
    assert {request.if_range for request in server.requests[1:]} == {server.files[NAME].validator}
    assert sum(request.sent for request in server.requests) == len(CONTENT)


def test_a_cut_within_a_chunk_costs_less_than_the_chunk(server, tmp_path):
    server.files[NAME].cuts = [CUT + 1000]
    assert get(server, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={CUT}-"]


def test_a_reset_connection_is_a_cut_one_too(server, tmp_path):
    server.files[NAME].cuts, server.files[NAME].ending = [CUT], "reset"
    assert get(server, tmp_path) == CONTENT
    assert len(server.requests) == 2


def test_a_server_that_sends_less_than_asked_is_asked_again(server, tmp_path):
    server.files[NAME].cuts, server.files[NAME].longest_part = [CUT], CHUNK_BYTES
    assert get(server, tmp_path) == CONTENT
    assert len(server.requests) == 1 + 4


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.files[NAME].cuts, server.files[NAME].understands_range = [CUT], False
    assert get(server, tmp_path) == CONTENT
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize("understands_if_range", [True, False])
def test_pieces_of_two_versions_are_never_joined(server, tmp_path, monkeypatch, understands_if_range):
    changed = CONTENT[::-1]
    server.files[NAME].cuts = [CUT]
    server.files[NAME].understands_if_range = understands_if_range
    monkeypatch.setattr("time.sleep", lambda seconds: setattr(server.files[NAME], "content", changed))
    assert get(server, tmp_path) == changed
    assert ranges(server)[1] == f"bytes={CUT}-"


def test_a_shorter_new_version_replaces_the_pieces(server, tmp_path, monkeypatch):
    server.files[NAME] = File(CONTENT, etag=None, last_modified="same", cuts=[CUT])
    monkeypatch.setattr("time.sleep", lambda seconds: setattr(server.files[NAME], "content", CONTENT[: CUT + 10]))
    assert get(server, tmp_path) == CONTENT[: CUT + 10]


def test_a_weak_etag_gives_way_to_the_date(server, tmp_path):
    server.files[NAME].etag, server.files[NAME].cuts = 'W/"weak"', [CUT]
    assert get(server, tmp_path) == CONTENT
    assert server.requests[1].if_range == server.files[NAME].last_modified


def test_a_file_without_validators_is_never_resumed(server, tmp_path):
    server.files[NAME] = File(CONTENT, etag=None, last_modified=None, cuts=[CUT])
    assert get(server, tmp_path) == CONTENT
    assert ranges(server) == [None, None]


def test_pieces_from_another_address_are_not_used(server, tmp_path):
    server.files[NAME].cuts = [CUT] + [0] * 9
    with pytest.raises(FetchError):
        get(server, tmp_path)
    server.files[NAME].cuts.clear()
    server.requests.clear()
    download.download(f"{server.url}/mirror/{NAME}", tmp_path / NAME, cure="check the network")
    assert ranges(server) == [None]


def test_a_busy_server_is_given_the_time_it_asks_for(server, tmp_path, pauses):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    date = email.utils.format_datetime(soon, usegmt=True)
    server.files[NAME].answers = [(503, {"Retry-After": "7"}), (429, {"Retry-After": date}), (500, {})]
    assert get(server, tmp_path) == CONTENT
    assert pauses[0] == 7
    assert pauses[1] == pytest.approx(100, abs=10)  # The date has whole seconds, and the test takes its time.
    assert pauses[2] == 4  # 1, 2, 4, ... where the server says nothing.


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, tmp_path, pauses):
    server.files[NAME].answers = [(503, {"Retry-After": "3600"})]
    with pytest.raises(FetchError, match="HTTP status 503 and asks for a pause of 3600 s; .* again later"):
        get(server, tmp_path)
    assert pauses == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server, tmp_path, status):
    server.files[NAME].answers = [(status, {})] * 9
    with pytest.raises(FetchError, match=f"{NAME}: the server answered with HTTP status {status}; check the network"):
        get(server, tmp_path)
    assert len(server.requests) == 1
    assert left_in(tmp_path) == set()


def test_a_file_shorter_than_announced_is_given_up_and_its_pieces_are_kept(server, tmp_path):
    server.files[NAME].announced_length = len(CONTENT) + 10
    server.files[NAME].understands_range = False
    with pytest.raises(FetchError, match="what has arrived is kept") as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == download.TRIES
    assert left_in(tmp_path) == {f"{NAME}.incomplete", "file.7z.origin"}


def test_a_server_that_always_breaks_off_at_one_place_is_given_up_and_finished_later(server, tmp_path):
    server.files[NAME].cuts = [CUT] + [0] * 9
    with pytest.raises(FetchError, match="run the same command again later"):
        get(server, tmp_path)
    assert len(server.requests) == download.TRIES
    server.files[NAME].cuts.clear()
    server.requests.clear()
    assert get(server, tmp_path) == CONTENT
    assert ranges(server) == [f"bytes={CUT}-"]


def test_a_connection_that_breaks_often_but_goes_forward_is_not_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK_BYTES", 1024)
    server.files[NAME].cuts = [20 * 1024] * 12
    assert get(server, tmp_path) == CONTENT
    assert len(server.requests) == 13 > download.TRIES


def test_a_silent_server_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 1.0)  # Long for a busy machine that is not silent.
    server.files[NAME].cuts, server.files[NAME].ending = [CUT], "silence"
    assert get(server, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={CUT}-"]


def test_a_server_that_is_not_there_is_named(pauses, tmp_path):
    absent = ArchiveServer()
    absent.server_close()
    with pytest.raises(FetchError, match=f"Cannot fetch {absent.url}/{NAME}: .*check the network"):
        get(absent, tmp_path)
    assert pauses == [1, 2, 4, 8]


def test_an_answer_of_unknown_length_is_refused(server, tmp_path):
    server.files[NAME].is_chunked = True
    with pytest.raises(FetchError, match="does not say how long the file is"):
        get(server, tmp_path)


@pytest.mark.parametrize("url", ["nowhere/file.7z", "ftp://127.0.0.1/file.7z", "http:///file.7z"])
def test_an_address_that_is_none_is_refused(tmp_path, url):
    with pytest.raises(FetchError, match="Cannot fetch .*; check the network"):
        download.download(url, tmp_path / NAME, cure="check the network")


def test_a_file_larger_than_the_disk_is_not_begun(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(FetchError, match=rf"{NAME} needs 0\.00 GB and the disk of {tmp_path} has 0\.00 GB free"):
        get(server, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert not (tmp_path / f"{NAME}.incomplete").exists()


def check(path):
    if path.read_bytes() != CONTENT:
        raise DamagedError("wrong bytes")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_damaged_file_is_fetched_once_more(server, tmp_path):
    server.files[NAME].damaged = 1
    digest = fetch_checked(f"{server.url}/{NAME}", tmp_path / NAME, check, cure="check the network")
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert len(server.requests) == 2


def test_a_file_that_stays_damaged_is_removed_and_named(server, tmp_path):
    server.files[NAME].damaged = 9
    with pytest.raises(FetchError, match=rf"{NAME} arrives damaged \(wrong bytes\); run .* later, or check"):
        fetch_checked(f"{server.url}/{NAME}", tmp_path / NAME, check, cure="check the network")
    assert len(server.requests) == 2
    assert left_in(tmp_path) == set()
