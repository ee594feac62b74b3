"""ETH3D's layout: depth warped through the lens, masks, exactly aligned depth, cameras that reproject."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from eth3d_scene import (
    BALL_CENTER,
    BALL_RADIUS,
    TAKEN_PARAMS,
    TAKEN_SIZE,
    WALL_NORMAL,
    WALL_OFFSET,
    cast,
    color,
    taken_camera,
    write_depth,
    write_scene,
)
from PIL import Image
from torch import Tensor

from vggt_quant.data.geometry import unproject_depth
from vggt_quant.data.images import load_images
from vggt_quant.data.scene import Scene, load_scene

SIZE = 168


def image_rays(scene: Scene, index: int) -> Tensor:
    """[H, W, 3] at depth 1, through the truth's own intrinsics."""
    ones = torch.ones(scene.images.shape[-2:])
    axes = torch.eye(3, 4, dtype=torch.float64)
    return unproject_depth(ones, axes, scene.truth.intrinsics[index])


def taken_pixels(scene: Scene, index: int) -> Tensor:
    """Where each pixel of the image lies in the photo as taken, by pycolmap: [H, W, 2]."""
    rays = image_rays(scene, index)
    pixels = taken_camera().img_from_cam(rays.reshape(-1, 3).numpy())
    return torch.from_numpy(np.array(pixels)).reshape(*rays.shape[:2], 2)


def near_edge(depth: Tensor) -> Tensor:
    """[H, W], where depth jumps within a pixel or two."""
    window = torch.nn.functional.max_pool2d
    largest, smallest = window(depth[None], 5, 1, 2)[0], -window(-depth[None], 5, 1, 2)[0]
    return largest / smallest > 1.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eth3d") / "courtyard"
    write_scene(folder)
    return folder


@pytest.fixture(scope="module", params=["crop", "pad"])
def scene(folder: Path, request: pytest.FixtureRequest) -> Scene:
    return load_scene(folder, size=SIZE, mode=request.param)


def test_a_scene_holds_its_photos_and_what_is_known_of_them(scene: Scene, folder: Path) -> None:
    height, width = scene.images.shape[-2:]
    assert (scene.name, scene.kind, scene.skipped) == ("courtyard", "eth3d", ())
    assert scene.folder == folder / "images" / "dslr_images_undistorted"
    assert [path.name for path in scene.paths] == ["DSC_0000.PNG", "DSC_0001.PNG", "DSC_0002.PNG"]
    mode = "crop" if height < width else "pad"
    assert torch.equal(scene.images, load_images(scene.paths, mode, size=SIZE))
    assert scene.truth.extrinsics.dtype == scene.truth.intrinsics.dtype == torch.float64
    assert scene.truth.depths.dtype == torch.float32
    assert scene.truth.depths.shape == (3, height, width)
    assert scene.truth.unit == "metre"


def test_warped_depth_is_the_depth_that_the_undistorted_camera_sees(scene: Scene) -> None:
    for index, extrinsic in enumerate(scene.truth.extrinsics):
        expected, depth = cast(image_rays(scene, index), extrinsic), scene.truth.depths[index].double()
        compared = (depth > 0) & ~near_edge(expected)
        padding = (scene.images[index] == 1).all(0)
        assert compared.sum() > 0.75 * (~padding).sum()
        error = (depth / expected - 1)[compared].abs()
        # The nearest pixel as taken is half a pixel off, 0.0015 rad; the wall is seen at up to 75 degrees, the ball's
        # rim at more.
        assert error.median() < 0.002
        assert error.max() < 0.03


@pytest.mark.parametrize("turned", [0.0, 0.004])
def test_warped_depth_is_not_shifted_by_a_fraction_of_a_pixel(tmp_path: Path, turned: float) -> None:
    write_scene(tmp_path, count=1, turned=turned)
    scene = load_scene(tmp_path, size=SIZE)
    rays, extrinsic, depth = image_rays(scene, 0), scene.truth.extrinsics[0], scene.truth.depths[0].double()
    expected = cast(rays, extrinsic)
    points = (rays * expected[..., None] - extrinsic[:, 3]) @ extrinsic[:, :3]
    wall = (depth > 0) & ((points @ WALL_NORMAL - WALL_OFFSET).abs() < 1e-9) & ~near_edge(expected)
    # On a plane n.X = c the inverse depth is linear in the ray, so its mean error is the mean shift in pixels.
    normal = extrinsic[:, :3] @ WALL_NORMAL
    offset = WALL_OFFSET + normal @ extrinsic[:, 3]
    shift = (1 / depth - 1 / expected)[wall].mean() * offset * TAKEN_PARAMS[0] / normal[:2].norm()
    # Samples lie evenly around their pixels; a wrong convention gives 0.35 and more, a pose that is not used 1.
    assert abs(float(shift)) < 0.05


def test_depth_is_unknown_in_the_padding_and_outside_of_the_photo_as_taken(scene: Scene) -> None:
    for index in range(3):
        pixels, depth = taken_pixels(scene, index), scene.truth.depths[index]
        limit = torch.tensor(TAKEN_SIZE)
        assert (depth[((pixels < -0.01) | (pixels > limit + 0.01)).any(-1)] == 0).all()
        padding = (scene.images[index] == 1).all(0)
        assert (depth[padding] == 0).all()
        assert (depth[~padding & ((pixels > 1) & (pixels < limit - 1)).all(-1)] > 0).all()


@pytest.mark.parametrize("mark", [1, 2])
def test_masked_pixels_are_unknown_and_no_others(tmp_path: Path, mark: int) -> None:
    write_scene(tmp_path, count=2)
    whole = load_scene(tmp_path, size=SIZE)
    mask = np.zeros((TAKEN_SIZE[1], TAKEN_SIZE[0]), dtype=np.uint8)
    mask[100:180, 150:420] = mark
    path = tmp_path / "masks_for_images" / "dslr_images" / "DSC_0000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)
    masked = load_scene(tmp_path, size=SIZE).truth.depths
    x, y = taken_pixels(whole, 0).unbind(-1)
    inside = (x > 150) & (x < 420) & (y > 100) & (y < 180)
    assert inside.sum() > 1000
    # A millionth of a pixel decides ties.
    near_border = torch.stack(((x - 150).abs(), (x - 420).abs(), (y - 100).abs(), (y - 180).abs())).amin(0) < 1e-5
    assert (masked[0][inside & ~near_border] == 0).all()
    kept = ~inside & ~near_border
    assert torch.equal(masked[0][kept], whole.truth.depths[0][kept])
    assert torch.equal(masked[1], whole.truth.depths[1])


def test_what_the_laser_did_not_see_is_unknown(tmp_path: Path) -> None:
    write_scene(tmp_path, count=1)
    depth = torch.full((TAKEN_SIZE[1], TAKEN_SIZE[0]), 2.0)
    depth[:, :150], depth[:, 150:300], depth[:, 300:400] = torch.inf, torch.nan, -1.0
    write_depth(tmp_path, "dslr_images", 0, depth)
    scene = load_scene(tmp_path, size=SIZE)
    x, known = taken_pixels(scene, 0)[..., 0], scene.truth.depths[0]
    assert (known[x < 399.9] == 0).all()
    # The same pose and axis: the value comes as it is, up to the rounding of the turned ray.
    torch.testing.assert_close(known[known > 0], torch.full_like(known[known > 0], 2.0), rtol=1e-6, atol=0)
    assert known.isfinite().all() and (known > 0).any()


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A scene as a renderer writes it: a tenth of a megapixel, nothing to resize, principal point half a pixel on."""
    folder = tmp_path_factory.mktemp("aligned")
    write_scene(
        folder, size=(280, 196), pinhole=(150.0, 150.0, 140.5, 98.5), images="dslr_images_undistorted", aligned=True
    )
    return load_scene(folder, size=280)


def test_aligned_depth_of_a_photo_that_keeps_its_size_comes_as_it_is(aligned: Scene) -> None:
    assert aligned.folder.name == "dslr_images_undistorted"
    for index in range(3):
        raw = np.fromfile(
            aligned.folder.parent / "ground_truth_depth" / "dslr_images_undistorted" / f"DSC_{index:04d}.PNG", "<f4"
        )
        assert np.array_equal(aligned.truth.depths[index].numpy().ravel(), raw)
    assert aligned.truth.intrinsics[0].tolist() == [[150, 0, 140], [0, 150, 98], [0, 0, 1]]


def test_unprojected_depth_lies_on_the_surfaces(aligned: Scene) -> None:
    truth = aligned.truth
    points = unproject_depth(truth.depths, truth.extrinsics, truth.intrinsics)
    wall = (points @ WALL_NORMAL - WALL_OFFSET).abs()
    ball = ((points - BALL_CENTER).norm(dim=-1) - BALL_RADIUS).abs()
    # Float32 depths of up to 15 m.
    assert torch.minimum(wall, ball).max() < 2e-6


def test_a_view_reprojected_into_another_shows_the_same_colours(aligned: Scene) -> None:
    truth = aligned.truth
    points = unproject_depth(truth.depths, truth.extrinsics, truth.intrinsics)[0].flatten(0, 1)
    in_second = points @ truth.extrinsics[2, :, :3].T + truth.extrinsics[2, :, 3]
    columns, rows = ((in_second / in_second[:, 2:]) @ truth.intrinsics[2].T)[:, :2].round().long().unbind(-1)
    seen = (columns >= 0) & (columns < 280) & (rows >= 0) & (rows < 196)
    columns, rows, there = columns[seen], rows[seen], in_second[seen, 2]
    first = aligned.images[0].flatten(1)[:, seen]
    visible = (there / truth.depths[2, rows, columns] - 1).abs() < 0.02
    assert visible.float().mean() > 0.7
    difference = (first - aligned.images[2][:, rows, columns]).abs().amax(0)[visible]
    # Half a pixel off, on a surface whose colour changes by 0.8 in a metre, is at most a few percent.
    assert difference.quantile(0.99) < 0.03
    # So are the colours those of the points.
    own = (first.T.double() - color(points[seen])).abs()
    assert own.max() < 0.5 / 255 + 1e-6


def test_aligned_depth_comes_before_warped_depth(tmp_path: Path) -> None:
    write_scene(tmp_path, count=1)
    write_depth(tmp_path, "dslr_images_undistorted", 0, torch.full((412, 620), 7.0))
    assert (load_scene(tmp_path, size=SIZE).truth.depths == 7).all()


def test_a_photo_without_a_pose_is_named_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scene(tmp_path)
    Image.new("RGB", (620, 412)).save(tmp_path / "images" / "dslr_images_undistorted" / "DSC_0000b.PNG")
    with caplog.at_level(logging.WARNING):
        truth = load_scene(tmp_path, size=SIZE).truth
    assert "1 of 4 photos have no pose: DSC_0000b.PNG." in caplog.text
    assert truth.extrinsics[1].isnan().all() and truth.intrinsics[1].isnan().all()
    assert (truth.depths[1] == 0).all()
    assert truth.extrinsics[[0, 2, 3]].isfinite().all() and (truth.depths[[0, 2, 3]] > 0).any((1, 2)).all()


def test_without_the_calibration_as_taken_depth_is_unknown_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_scene(tmp_path, count=1)
    (tmp_path / "dslr_calibration_jpg").rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        truth = load_scene(tmp_path, size=SIZE).truth
    assert truth.depths is None and truth.extrinsics.isfinite().all()
    assert "dslr_calibration_jpg is missing, so its depth maps cannot be used" in caplog.text


def test_without_any_calibration_there_is_no_truth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scene(tmp_path, count=1)
    (tmp_path / "dslr_calibration_undistorted").rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        scene = load_scene(tmp_path, size=SIZE)
    assert scene.truth is None and scene.kind == "eth3d"
    assert "dslr_calibration_undistorted is missing" in caplog.text
