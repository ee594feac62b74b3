"""A scene layout is one file: the one of docs/extending.md, dropped into a copy of the package."""

import json

import pytest
from extending_guide import code
from package_copy import PackageCopy
from PIL import Image

POSE = "1 0 0 0.5  0 1 0 0  0 0 1 2"


def write_scene(folder):
    folder.mkdir(parents=True)
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (56, 42), color).save(folder / name)
    (folder / "poses.txt").write_text(f"a.png {POSE}\nb.png {POSE.replace('0.5', '1.5')}\n")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    package = PackageCopy(tmp_path_factory.mktemp("copy"))
    package.add("vggt_quant/data/scenes/pose_list.py", code("A scene layout"))
    for name in ("first", "second"):
        write_scene(package.folder / "scenes" / name)
    return package


def images(copied, folder):
    found = copied.vggt_quant("images", "--images", folder, "--model", "nano-random", "--result", "images.json")
    assert found.returncode == 0, found.stderr
    return json.loads((copied.folder / "images.json").read_text())["scenes"]


def test_its_folder_is_a_scene_with_ground_truth(copied):
    (scene,) = images(copied, "scenes/first")
    assert (scene["name"], scene["kind"], scene["truth"], scene["unit"]) == ("first", "pose_list", ["poses"], "metre")


def test_a_folder_of_such_folders_is_as_many_scenes(copied):
    assert [scene["name"] for scene in images(copied, "scenes")] == ["first", "second"]


def test_a_mistake_in_a_file_is_one_sentence_with_its_line(copied):
    write_scene(copied.folder / "broken")
    (copied.folder / "broken" / "poses.txt").write_text(f"a.png {POSE}\nb.png {POSE.replace('0.5', 'x')}\n")
    found = copied.vggt_quant("images", "--images", "broken", "--model", "nano-random", "--result", "broken.json")
    assert found.returncode == 2
    assert "broken/poses.txt, line 2: 'x' is not a finite number" in found.stderr


def test_help_names_it(copied):
    found = copied.vggt_quant("images", "--help")
    assert "(layouts: eth3d, pose_list, seven_scenes)" in " ".join(found.stdout.split())


def test_the_walk_through_is_short():
    assert len(code("A scene layout").splitlines()) < 30
