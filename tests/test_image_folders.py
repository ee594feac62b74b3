"""Photos are found in folders as people have them: nested, mixed with other files, damaged, oddly named."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import write_photo

from vggt_quant.data.find_images import FoundImages, find_images
from vggt_quant.data.images import load_images
from vggt_quant.data.photo_files import photo_extensions, show

SHARED_PHOTOS = Path(__file__).parents[2] / "shared" / "photos"


def names(found: FoundImages) -> list[str]:
    return [path.relative_to(found.folder).as_posix() for path in found.paths]


def reasons(found: FoundImages) -> dict[str, str]:
    return {path.name: reason for path, reason in found.skipped}


def test_the_folder_itself_comes_first(tmp_path: Path) -> None:
    write_photo(tmp_path / "here.png")
    write_photo(tmp_path / "dslr_images_undistorted" / "there.png")
    found = find_images(tmp_path)
    assert (names(found), found.folder, found.skipped) == (["here.png"], tmp_path, ())


@pytest.mark.parametrize("inner", ["dslr_images_undistorted", "images/dslr_images_undistorted"])
def test_eth3d_scenes_give_their_undistorted_photos(tmp_path: Path, inner: str) -> None:
    write_photo(tmp_path / inner / "DSC_0287.JPG")
    write_photo(tmp_path / "images" / "rig_images" / "other.png")
    write_photo(tmp_path / "masks_for_images" / "dslr_images" / "DSC_0287.png")
    found = find_images(str(tmp_path))
    assert (names(found), found.folder) == (["DSC_0287.JPG"], tmp_path / inner)


def test_otherwise_subfolders_are_searched_but_not_those_of_masks_and_depths(tmp_path: Path) -> None:
    for name in ("seq-02/b.png", "seq-01/deep/a.jpg", "Masks/m.png", "ground_truth_depth/d.png", "__MACOSX/x.png"):
        write_photo(tmp_path / name)
    write_photo(tmp_path / ".thumbnails" / "t.png")
    found = find_images(tmp_path)
    assert (names(found), found.folder) == (["seq-01/deep/a.jpg", "seq-02/b.png"], tmp_path)


def test_a_folder_of_depths_may_still_be_given_itself(tmp_path: Path) -> None:
    assert names(find_images(write_photo(tmp_path / "depth" / "a.png").parent)) == ["a.png"]


def test_links_to_folders_are_not_followed_and_links_to_photos_are(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "store" / "a.png")
    scene = tmp_path / "scene"
    (scene / "sub").mkdir(parents=True)
    (scene / "sub" / "loop").symlink_to(scene, target_is_directory=True)
    (scene / "sub" / "b.png").symlink_to(photo)
    (scene / "sub" / "broken.png").symlink_to(tmp_path / "absent")
    assert names(find_images(scene)) == ["sub/b.png"]


def test_photos_come_in_the_order_of_their_names_without_regard_to_case(tmp_path: Path) -> None:
    written = ["b.png", "A.PNG", "a.jpg", "IMG_10.jpeg", "img_2.png", "C.JPeG"]
    for name in written:
        write_photo(tmp_path / name)
    assert names(find_images(tmp_path)) == ["a.jpg", "A.PNG", "b.png", "C.JPeG", "IMG_10.jpeg", "img_2.png"]


def test_photos_of_a_subfolder_stay_together(tmp_path: Path) -> None:
    for name in ("a/z.png", "a-b/y.png", "B/x.png"):
        write_photo(tmp_path / name)
    assert names(find_images(tmp_path)) == ["a/z.png", "a-b/y.png", "B/x.png"]


def test_hidden_files_and_what_pillow_does_not_open_are_passed_over_in_silence(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png")
    for name in ("._a.png", ".hidden.jpg", "notes.txt", "png", "paper.pdf", "data.h5", "figure.eps", "a.png.part"):
        (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "folder.jpg").mkdir()
    found = find_images(tmp_path)
    assert (names(found), found.skipped) == (["a.png"], ())


@pytest.mark.parametrize("name", ["a b.png", "Küche 厨房.JPG", "-rf.png", "$HOME;`ls`.png", "a\nb.png", "x.y.z.jpeg"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    write_photo(tmp_path / name)
    found = find_images(tmp_path)
    assert names(found) == [name]
    assert load_images(found.paths, size=28).shape == (1, 3, 28, 28)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are any bytes")
def test_names_that_are_no_text_can_be_shown(tmp_path: Path) -> None:
    write_photo(tmp_path / "good.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert show(find_images(tmp_path).paths[0].name) == r"'caf\udce9.png'"


@pytest.mark.parametrize("extension", [".webp", ".tiff", ".bmp", ".gif", ".ppm"])
def test_whatever_pillow_opens_by_its_extension_is_a_photo(tmp_path: Path, extension: str) -> None:
    write_photo(tmp_path / f"a{extension.upper()}", format=Image.registered_extensions()[extension])
    assert len(find_images(tmp_path).paths) == 1
    assert {".jpg", ".jpeg", ".png", extension} <= photo_extensions()


def test_the_content_decides_the_format_and_not_the_name(tmp_path: Path) -> None:
    write_photo(tmp_path / "really_jpeg.png", format="JPEG")
    assert len(find_images(tmp_path).paths) == 1


def test_max_images_counts_good_ones_and_ends_the_search(tmp_path: Path) -> None:
    for name in ("b.png", "d.png", "e.png"):
        write_photo(tmp_path / name)
    for name in ("a.png", "c.png", "f.png"):
        (tmp_path / name).touch()
    found = find_images(tmp_path, max_images=2)
    assert (names(found), sorted(reasons(found))) == (["b.png", "d.png"], ["a.png", "c.png"])
    assert names(find_images(tmp_path, max_images=9)) == ["b.png", "d.png", "e.png"]
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"max_images is {wrong}; give 1 or more"):
            find_images(tmp_path, max_images=wrong)


def test_files_that_are_no_photos_are_skipped_and_named_with_the_reason(tmp_path: Path) -> None:
    good = write_photo(tmp_path / "good.png", (64, 64))
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:2000])
    photo = write_photo(tmp_path / "whole.jpg", (64, 64)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    Image.fromarray(np.full((4, 4), 3000, dtype=np.uint16)).save(tmp_path / "depth.png")
    Image.fromarray(np.full((4, 4), 1.5, dtype=np.float32)).save(tmp_path / "depth.tiff")
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    found = find_images(tmp_path)
    assert names(found) == ["good.png", "whole.jpg"]
    given = reasons(found)
    assert set(given) == {
        "empty.jpg", "text.jpg", "cut.png", "cut.jpg", "depth.png", "depth.tiff", "phone.HEIC",
    }  # fmt: skip
    assert given["empty.jpg"] == "empty (0 bytes)"
    assert given["text.jpg"] == "not an image that Pillow knows"
    assert "truncated" in given["cut.png"] and "truncated" in given["cut.jpg"]
    assert given["depth.png"] == given["depth.tiff"] == "one channel of more than 8 bits: a depth map, not a photo"
    assert given["phone.HEIC"] == "HEIC, which Pillow cannot read: convert it to JPEG"


def test_a_decompression_bomb_is_a_reason_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = write_photo(tmp_path / "bomb.png", (100, 100))
    large = write_photo(tmp_path / "large.png", (40, 40))
    # Pillow warns above this number of pixels, which a large photo may have, and refuses twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    found = find_images(tmp_path)
    assert (found.paths, reasons(found)) == (
        (large,),
        {"bomb.png": "more than 2,000 pixels, Pillow's limit for one image"},
    )
    with pytest.raises(ValueError, match=r"bomb.png cannot be used \(more than 2,000 pixels"):
        load_images([bomb])


def test_postscript_under_a_photos_name_is_not_run(tmp_path: Path) -> None:
    write_photo(tmp_path / "good.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "bad.jpg", format="EPS")
    assert reasons(find_images(tmp_path)) == {"bad.jpg": "not an image that Pillow knows"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), source=st.sampled_from(["a.png", "a.jpg", "a.webp", "a.gif", "a.ppm", "a.bmp"]))
def test_a_damaged_file_is_read_or_skipped_and_never_stops_the_search(
    tmp_path: Path, data: st.DataObject, source: str
) -> None:
    whole = write_photo(tmp_path / "whole" / source, (16, 16)).read_bytes()
    scene = tmp_path / "scene"
    write_photo(scene / "good.png")
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (scene / "x.png").write_bytes(bytes(damaged))
    found = find_images(scene)
    assert names(found) == ["good.png"] + ["x.png"] * (not found.skipped)
    assert all(reason for _, reason in found.skipped)


def test_photos_that_are_all_damaged_send_the_search_on(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write_photo(tmp_path / "dslr_images_undistorted" / "b.png")
    found = find_images(tmp_path)
    assert (names(found), list(reasons(found))) == (["b.png"], ["a.png"])


def test_without_a_usable_photo_one_sentence_says_where_it_looked_and_what_it_skipped(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.jpg").write_text("text")
    with pytest.raises(ValueError) as caught:
        find_images(tmp_path)
    assert str(caught.value) == (
        f"No usable photo in {tmp_path} or the subfolders: skipped 6: 0.png, 1.png, 2.png and 2 more "
        "(empty (0 bytes)), x.jpg (not an image that Pillow knows); give a folder that holds .jpg or .png photos."
    )


def test_where_a_layout_has_its_photos_is_named_among_the_places(tmp_path: Path) -> None:
    place = tmp_path / "images" / "dslr_images_undistorted"
    place.mkdir(parents=True)
    with pytest.raises(ValueError, match=re.escape(f"No usable photo in {tmp_path}, {place} or the subfolders: ")):
        find_images(tmp_path)


def test_an_empty_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"or the subfolders: no file is named like a photo; give a folder"):
        find_images(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent does not exist; check its path"):
        find_images(tmp_path / "absent")
    photo = write_photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=re.escape(f"{photo} is a file; give the folder that holds the photos")):
        find_images(photo)


@pytest.mark.skipif(not SHARED_PHOTOS.is_dir(), reason="the real photos are not beside this checkout")
def test_real_rgbd_frames_give_their_colour_photos_only() -> None:
    found = find_images(SHARED_PHOTOS / "7scenes")
    assert len(found.paths) == 8 and all(path.name.endswith(".color.jpg") for path in found.paths)
    assert len(found.skipped) == 8 and all(path.name.endswith(".depth.png") for path, _ in found.skipped)
