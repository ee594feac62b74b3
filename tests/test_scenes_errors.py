"""Damaged ETH3D scenes: one sentence that names the file and the line, and nothing is read past it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from eth3d_scene import write_scene
from PIL import Image

from vggt_quant.data.scene import load_scene

SMALL = {"size": (56, 42), "pinhole": (30.0, 30.0, 28.5, 21.5)}
CAMERAS, IMAGES = "dslr_calibration_undistorted/cameras.txt", "dslr_calibration_undistorted/images.txt"


def edit(name: str, line: int, change: Callable[[str], str | None]) -> Callable[[Path], None]:
    """Change a line (counted from 1) of a file, or drop it by returning None."""

    def apply(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        changed = change(lines[line - 1])
        lines[line - 1 : line] = [] if changed is None else [changed]
        (folder / name).write_text("\n".join(lines) + "\n")

    return apply


def word(index: int, new: str) -> Callable[[str], str]:
    def change(line: str) -> str:
        words = line.split(" ")
        words[index] = new
        return " ".join(words)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


BROKEN = {
    "model": (edit(CAMERAS, 2, word(1, "SPHERE")), r"cameras.txt, line 2: .*'SPHERE' is not known"),
    "distorted": (
        edit(CAMERAS, 2, lambda line: line.replace("PINHOLE", "OPENCV") + " 0 0 0 0"),
        r"cameras.txt, line 2: OPENCV is not.*undistort the photos",
    ),
    "few parameters": (edit(CAMERAS, 2, lambda line: line[: line.rindex(" ")]), r"cameras.txt, line 2: .*4 parameters"),
    "short camera": (edit(CAMERAS, 2, lambda line: line[:9]), r"cameras.txt, line 2: a camera has an id, model"),
    "not a number": (edit(CAMERAS, 2, word(5, "3o.0")), r"cameras.txt, line 2: '3o.0' is not a finite number"),
    "no focal length": (edit(CAMERAS, 2, word(4, "0")), r"cameras.txt, line 2: .*focal length 0.0"),
    "width": (edit(CAMERAS, 2, word(2, "56.5")), r"cameras.txt, line 2: '56.5' is not a whole number"),
    "camera twice": (
        edit(CAMERAS, 2, lambda line: f"{line}\n{line}"),
        r"cameras.txt, line 3: camera 0 is also in .*cameras.txt, line 2",
    ),
    "other photos": (edit(CAMERAS, 2, word(2, "57")), r"cameras.txt, line 2: .*57 x 42.*DSC_0000.PNG 56 x 42"),
    "no cameras.txt": (remove(CAMERAS), r"cameras.txt cannot be read \(No such file"),
    "no images.txt": (remove(IMAGES), r"images.txt cannot be read \(No such file"),
    "unknown camera": (edit(IMAGES, 2, word(8, "9")), r"images.txt, line 2: camera 9 is not in cameras.txt"),
    "infinite": (edit(IMAGES, 4, word(5, "inf")), r"images.txt, line 4: 'inf' is not a finite number"),
    "no rotation": (edit(IMAGES, 2, word(1, "3.0")), r"images.txt, line 2: the quaternion 3.0 .* is not a rotation"),
    "zero rotation": (
        edit(IMAGES, 2, lambda line: " ".join([line.split()[0], "0", "0", "0", "0", *line.split()[5:]])),
        r"images.txt, line 2: the quaternion 0 0 0 0 is not a rotation",
    ),
    "truncated": (edit(IMAGES, 4, lambda line: line[:40]), r"images.txt, line 4: a pose has 10 values"),
    "one line per photo": (edit(IMAGES, 3, lambda line: None), r"images.txt, line 3: 10 values are not points"),
    "photo twice": (
        edit(IMAGES, 4, lambda line: line.replace("DSC_0001", "DSC_0000")),
        r"images.txt, line 4: DSC_0000.PNG has another pose in .*images.txt, line 2",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_calibration_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    write_scene(tmp_path, count=2, aligned=True, **SMALL)
    break_it, message = BROKEN[case]
    assert load_scene(tmp_path, size=56).truth is not None
    break_it(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_scene(tmp_path, size=56)
    assert "\n" not in str(caught.value)


def test_a_last_photo_without_its_second_line_is_read(tmp_path: Path) -> None:
    """Editors strip empty lines from the end of a file."""
    write_scene(tmp_path, count=1, aligned=True, **SMALL)
    images = tmp_path / IMAGES
    images.write_text(images.read_text().rstrip())
    assert load_scene(tmp_path, size=56).truth.extrinsics.isfinite().all()


def test_a_photo_with_spaces_in_its_name_keeps_its_pose(tmp_path: Path) -> None:
    write_scene(tmp_path, count=1, aligned=True, **SMALL)
    photos = tmp_path / "images" / "dslr_images_undistorted"
    (photos / "DSC_0000.PNG").rename(photos / "the court yard.PNG")
    edit(IMAGES, 2, lambda line: line.replace("DSC_0000", "the court yard"))(tmp_path)
    assert load_scene(tmp_path, size=56).truth.extrinsics.isfinite().all()


@pytest.mark.parametrize("length", [0, 4 * 56 * 42 - 1, 4 * 56 * 42 + 4])
def test_a_depth_map_of_a_wrong_length_is_refused(tmp_path: Path, length: int) -> None:
    write_scene(tmp_path, count=1, aligned=True, **SMALL)
    path = tmp_path / "ground_truth_depth" / "dslr_images_undistorted" / "DSC_0000.PNG"
    path.write_bytes(bytes(length))
    with pytest.raises(ValueError, match=rf"DSC_0000.PNG has {length} bytes, and 56 x 42 pixels of float32 take 9408"):
        load_scene(tmp_path, size=56)


@pytest.mark.parametrize("shape", [(400, 599), (400, 600, 3)])
def test_a_mask_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_scene(tmp_path, count=1)
    path = tmp_path / "masks_for_images" / "dslr_images" / "DSC_0000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(path)
    with pytest.raises(ValueError, match=rf"DSC_0000.png has the shape {' x '.join(map(str, shape))}, and its photo"):
        load_scene(tmp_path, size=56)


def test_two_poses_of_a_photo_that_differ_are_refused(tmp_path: Path) -> None:
    write_scene(tmp_path, count=1, turned=0.02)
    with pytest.raises(ValueError, match=r"undistorted/images.txt, line 2 and .*jpg/images.txt, line 2: .* 0.02 rad"):
        load_scene(tmp_path, size=56)
