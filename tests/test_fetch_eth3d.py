"""`fetch eth3d` as a user meets it: archives in the true layout from a real server, cut, damaged, killed."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections import namedtuple

import pytest
from archive_server import ArchiveServer, File, archive, members_of, scene_archives
from processes import COMMAND

from vggt_quant.cli import main as cli
from vggt_quant.data.fetch.download import CHUNK_BYTES
from vggt_quant.data.fetch.eth3d import BASE_URL_VARIABLE, SCENES
from vggt_quant.data.fetch.target import workplace

SCENE = "courtyard"
PHOTOS = f"{SCENE}_dslr_undistorted.7z"
CAMERA = f"{SCENE}_dslr_jpg.7z"
DEPTH = f"{SCENE}_dslr_depth.7z"
MASKS = f"{SCENE}_dslr_occlusion.7z"
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture(scope="module")
def archives():
    return scene_archives(SCENE)


@pytest.fixture
def server(archives, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ArchiveServer() as running:
        running.files = {name: File(content) for name, content in archives.items()}
        monkeypatch.setenv(BASE_URL_VARIABLE, running.url)
        yield running


@pytest.fixture
def fetch(tmp_path, capsys):
    """Run the command; give its exit code, stdout and stderr."""

    def run(scene=SCENE, *flags):
        code = cli.main(["fetch", "eth3d", scene, "--to", str(tmp_path / "to"), *flags])
        return code, *capsys.readouterr()

    return run


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected_files(archives):
    """What is to lie in the scene's folder: all but the distorted photos and the meshes."""
    every = {name: content for packed in archives.values() for name, content in members_of(packed).items()}
    skipped = (f"{SCENE}/images/dslr_images/", f"{SCENE}/occlusion/")
    return {name.removeprefix(f"{SCENE}/"): data for name, data in every.items() if not name.startswith(skipped)}


def assert_complete(to, archives):
    found = files_in(to / SCENE)
    found.pop("fetched.json")
    assert found == expected_files(archives)
    assert {path.name for path in to.iterdir()} == {SCENE}


def assert_one_sentence(error, *words):
    assert error.strip().startswith("vggt-quant: fetch: ")
    assert "\n" not in error.strip()
    assert all(word in error for word in words), error


def test_a_scene_arrives_in_eth3ds_layout(server, fetch, tmp_path, archives):
    code, said, _ = fetch()
    assert (code, said) == (0, f"{tmp_path / 'to' / SCENE} is complete (15 files).\n")
    assert_complete(tmp_path / "to", archives)
    folders = {name.rpartition("/")[0] for name in expected_files(archives)}
    assert folders == {
        *("images/dslr_images_undistorted", "dslr_calibration_undistorted", "dslr_calibration_jpg"),
        *("ground_truth_depth/dslr_images", "masks_for_images/dslr_images"),
    }
    manifest = json.loads((tmp_path / "to" / SCENE / "fetched.json").read_text())
    assert manifest["archives"] == [
        {"url": f"{server.url}/{name}", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in archives.items()
    ]


def test_a_second_call_asks_no_server_and_says_so(server, fetch, tmp_path):
    fetch()
    server.requests.clear()
    code, said, error = fetch()
    assert (code, error, server.requests) == (0, "", [])
    assert said == f"{tmp_path / 'to' / SCENE} is complete (15 files); nothing was fetched.\n"


@pytest.mark.parametrize("harm", ["remove", "shorten"])
def test_a_scene_that_was_harmed_later_is_not_taken_for_complete(server, fetch, tmp_path, harm):
    fetch()
    victim = tmp_path / "to" / SCENE / "dslr_calibration_jpg" / "cameras.txt"
    victim.unlink() if harm == "remove" else victim.write_text("")
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error, "lacks 1 of its 15 files", "dslr_calibration_jpg/cameras.txt", "delete the folder")


def test_a_folder_of_somebody_elses_is_left_alone(server, fetch, tmp_path):
    (tmp_path / "to" / SCENE).mkdir(parents=True)
    (tmp_path / "to" / SCENE / "mine.txt").write_text("mine")
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error, "is in the way", "choose another --to")
    assert files_in(tmp_path / "to") == {f"{SCENE}/mine.txt": b"mine"}


def test_a_cut_connection_is_resumed(server, fetch, tmp_path, archives):
    server.files[PHOTOS].cuts = [2 * CHUNK_BYTES]
    assert fetch()[0] == 0
    assert [request.range for request in server.asked(PHOTOS)] == [None, f"bytes={2 * CHUNK_BYTES}-"]
    assert_complete(tmp_path / "to", archives)


def test_a_damaged_archive_is_fetched_again(server, fetch, tmp_path, archives):
    server.files[DEPTH].damaged = 1
    assert fetch()[0] == 0
    assert [len(server.asked(name)) for name in archives] == [1, 1, 2, 1]
    assert_complete(tmp_path / "to", archives)


def test_an_archive_that_stays_damaged_is_named_and_the_others_are_kept(server, fetch, tmp_path, archives):
    server.files[DEPTH].damaged = 2
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], DEPTH, "arrives damaged", "run the same command later")
    assert not (tmp_path / "to" / SCENE).exists()
    assert fetch()[0] == 0
    assert [len(server.asked(name)) for name in archives] == [1, 1, 3, 1]
    assert_complete(tmp_path / "to", archives)


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_damage_anywhere_in_an_archive_is_noticed(server, fetch, tmp_path, archives, place):
    content = bytearray(archives[PHOTOS])
    content[{"start": 9, "middle": len(content) // 2, "end": -9}[place]] ^= 1
    server.files[PHOTOS].content = bytes(content)
    code, _, error = fetch()
    assert code == 2
    assert "arrives damaged" in error
    assert not (tmp_path / "to" / SCENE).exists()


def test_an_archive_that_a_server_believes_to_be_shorter_is_damaged(server, fetch):
    server.files[PHOTOS].announced_length = len(server.files[PHOTOS].content) - 100
    code, _, error = fetch()
    assert code == 2
    assert "arrives damaged" in error


def test_a_missing_archive_is_named_with_the_cure(server, fetch):
    del server.files[DEPTH]
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], f"{server.url}/{DEPTH}", "HTTP status 404", BASE_URL_VARIABLE)


def test_a_wrong_scene_is_told_all_names(fetch, tmp_path):
    code, _, error = fetch("courtyards")
    assert code == 2
    assert_one_sentence(error, "'courtyards'", *SCENES)
    assert not (tmp_path / "to").exists()


def test_archives_are_kept_on_request(server, fetch, tmp_path, archives):
    assert fetch(SCENE, "--keep-archives")[0] == 0
    assert {path.name for path in (tmp_path / "to").iterdir()} == {SCENE, *archives}
    assert all((tmp_path / "to" / name).read_bytes() == content for name, content in archives.items())


@pytest.mark.parametrize(
    "path", ["../../evil.JPG", "/tmp/evil.JPG", "courtyard/images/../../../evil.JPG", "C:/evil.JPG"]
)
def test_a_member_that_leads_out_of_the_folder_is_refused(server, fetch, tmp_path, path):
    inside = f"{SCENE}/images/dslr_images_undistorted/DSC_0286.JPG"
    server.files[PHOTOS].content = archive({inside: b"x", f"{SCENE}/b": b"y"}, rename={inside: path})
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], repr(path), "leads out of the folder", "delete it")
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_an_archive_is_refused(server, fetch, tmp_path):
    members = {f"{SCENE}/images/dslr_images_undistorted/DSC_0286.JPG": b"x"}
    server.files[PHOTOS].content = archive(members, links={f"{SCENE}/images/link": "/etc"})
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], f"'{SCENE}/images/link' is a link", "delete it")
    assert not list(tmp_path.rglob("link"))


def test_an_archive_of_another_layout_is_refused(server, fetch):
    server.files[CAMERA].content = archive({f"{SCENE}/cameras/cameras.txt": b"x"})
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], CAMERA, f"holds no {SCENE}/dslr_calibration_jpg")


def test_a_scene_may_have_no_masks_and_that_is_said(server, fetch, tmp_path, caplog):
    server.files[MASKS].content = archive({f"{SCENE}/occlusion/splats.ply": b"ply"})
    assert fetch()[0] == 0
    assert f"{MASKS} holds no {SCENE}/masks_for_images; the scene goes without." in caplog.text
    assert not (tmp_path / "to" / SCENE / "masks_for_images").exists()


def test_a_scene_without_an_archive_of_masks_is_complete_and_that_is_said(server, fetch, tmp_path, caplog):
    del server.files[MASKS]
    assert fetch()[0] == 0
    assert "HTTP status 404" in caplog.text and "The scene goes without masks_for_images." in caplog.text
    assert (tmp_path / "to" / SCENE / "ground_truth_depth").is_dir()
    assert "nothing was fetched" in fetch()[1]


def test_a_scene_larger_than_the_disk_is_not_unpacked(server, fetch, tmp_path, monkeypatch):
    limit = len(server.files[PHOTOS].content) + 1000  # Enough for the archive, not for what is in it.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: USAGE(limit, 0, limit))
    server.files[PHOTOS].content = archive(
        {
            f"{SCENE}/images/dslr_images_undistorted/DSC_0286.JPG": bytes(2 * limit),
            f"{SCENE}/dslr_calibration_undistorted/cameras.txt": b"x",
        }
    )
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], f"Unpacking {PHOTOS} needs", "free; free some space")
    assert not list((tmp_path / "to").rglob("*.JPG"))


def test_a_disk_that_is_suddenly_full_is_a_sentence(server, fetch, tmp_path):
    work = tmp_path / "to" / f"{SCENE}.incomplete"
    work.mkdir(parents=True)
    (work / PHOTOS.replace(".7z", ".draft")).symlink_to("/dev/full")  # Where the first archive's record is written.
    code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error.splitlines()[-1], f"The disk of {tmp_path / 'to'} is full", "choose another --to")


def test_two_calls_at_a_time_do_not_meet(server, fetch, tmp_path):
    with workplace(tmp_path / "to" / SCENE):
        code, _, error = fetch()
    assert code == 2
    assert_one_sentence(error, "Another process is filling")
    assert server.requests == []


def test_a_disk_that_knows_no_locks_is_good_enough(server, fetch, tmp_path, archives, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert fetch()[0] == 0
    assert_complete(tmp_path / "to", archives)


def test_what_a_killed_unpacking_left_is_replaced(server, fetch, tmp_path, archives):
    half = tmp_path / "to" / f"{SCENE}.incomplete" / SCENE / "images" / "dslr_images_undistorted" / "HALF.JPG"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert fetch()[0] == 0
    assert_complete(tmp_path / "to", archives)


def test_a_killed_call_leaves_nothing_that_looks_finished_and_the_next_one_goes_on(server, fetch, tmp_path, archives):
    server.files[DEPTH].cuts, server.files[DEPTH].ending = [3000], "silence"
    server.files[PHOTOS].cuts, server.files[PHOTOS].ending = [2 * CHUNK_BYTES], "silence"
    environment = {**os.environ, BASE_URL_VARIABLE: server.url}
    piece = tmp_path / "to" / f"{SCENE}.incomplete" / f"{PHOTOS}.incomplete"
    command = [*COMMAND, "fetch", "eth3d", SCENE, "--to", str(tmp_path / "to")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: piece.exists() and piece.stat().st_size == 2 * CHUNK_BYTES)
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "to" / SCENE).exists()
    server.requests.clear()
    server.files[DEPTH].cuts.clear()
    assert fetch()[0] == 0
    assert [request.range for request in server.asked(PHOTOS)] == [f"bytes={2 * CHUNK_BYTES}-"]
    assert_complete(tmp_path / "to", archives)


def wait_until(condition):
    event = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < event, "it did not happen"
        os.sched_yield()
