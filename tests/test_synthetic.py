"""The drawn rooms: exact geometry, matte colours, deterministic files."""

import pytest
import torch
from PIL import Image

from vggt_quant.synthetic import build_scene, draw_scene, orbit, render

HEIGHT, WIDTH = 96, 144


def project(points, camera):
    """World points [..., 3] to pixels [..., 2] and z-depth [...]."""
    in_camera = points @ camera.extrinsic[:, :3].T + camera.extrinsic[:, 3]
    pixels = in_camera @ camera.intrinsic.T
    return pixels[..., :2] / pixels[..., 2:], in_camera[..., 2]


@pytest.fixture(scope="module")
def views():
    """Two neighbouring cameras of four and their renderings, and the pixels of the first that the second sees."""
    scene, cameras = build_scene(0), orbit(4, HEIGHT, WIDTH, seed=0)[:2]
    first, second = (render(scene, camera, HEIGHT, WIDTH) for camera in cameras)
    pixels, depth = project(first["world_points"], cameras[1])
    column, row = pixels.round().long().unbind(-1)
    inside = (depth > 0) & (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    where = (row.clamp(0, HEIGHT - 1), column.clamp(0, WIDTH - 1))
    # 3 % of depth: more than a slanted surface changes within a pixel, less than any object is thick.
    visible = inside & ((second["depth"][where] - depth).abs() < 0.03 * depth)
    return cameras, first, second, where, inside, visible


def test_depth_unprojects_to_the_world_points(views):
    cameras, first, *_ = views
    pixels, depth = project(first["world_points"], cameras[0])
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    expected = torch.stack([u, v], dim=-1).float()
    # float32 world coordinates of a few metres: 1e-6 m times a focal length of 107 pixels.
    torch.testing.assert_close(pixels, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(depth, first["depth"], rtol=1e-5, atol=1e-5)


def test_neighbouring_views_see_the_same_points_at_the_same_places(views):
    _, first, second, where, inside, visible = views
    assert visible.float().mean() > 0.4, "views must overlap"
    assert visible.sum() > 0.8 * inside.sum(), "most points inside the other picture are not hidden there"
    error = (second["world_points"][where] - first["world_points"]).norm(dim=-1)[visible]
    # Rounding moves a point by up to half a pixel: 5 m / focal length 107 / 2 = 2.3 cm, more on slanted surfaces.
    assert error.median() < 0.03
    assert error.quantile(0.95) < 0.15


def test_a_point_has_the_same_colour_in_every_view(views):
    _, first, second, where, _, visible = views
    there = second["rgb"].permute(1, 2, 0)[where][visible]
    here = first["rgb"].permute(1, 2, 0)[visible]
    same = (there - here).abs().mean()
    other = (there.roll(len(there) // 2, dims=0) - here).abs().mean()
    assert same < 0.05, "half a pixel of texture is all that may differ"
    assert other > 3 * same


def test_pictures_are_neither_flat_nor_burnt_out(views):
    rgb = views[1]["rgb"]
    assert 0.1 < rgb.std() < 0.4
    assert 0.25 < rgb.mean() < 0.75
    assert (rgb == 1).float().mean() < 0.1
    assert (rgb.amax(dim=0) - rgb.amin(dim=0)).mean() > 0.05, "coloured, not gray"


@pytest.mark.parametrize("seed", range(12))
def test_no_camera_stands_inside_an_object_or_outside_the_room(seed):
    scene = build_scene(seed)
    for camera in orbit(5, 12, 18, seed=seed):
        assert (camera.position > scene.room[0]).all()
        assert (camera.position < scene.room[1]).all()
        rotation = camera.extrinsic[:, :3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-5)  # float32 rounding
        assert torch.linalg.det(rotation) > 0
        depth = render(scene, camera, 12, 18, supersample=1)["depth"]
        assert depth.isfinite().all()
        assert depth.min() > 0.2
        assert depth.max() < 12


def test_drawing_twice_gives_the_same_files_and_another_seed_gives_others(tmp_path):
    once = draw_scene(tmp_path / "once", num_images=2, size=(48, 32), seed=3)
    again = draw_scene(tmp_path / "again", num_images=2, size=(48, 32), seed=3)
    other = draw_scene(tmp_path / "other", num_images=2, size=(48, 32), seed=4)
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    assert once[0].read_bytes() != once[1].read_bytes()
    assert all(path.read_bytes() not in {one.read_bytes() for one in once} for path in other)


def test_a_drawn_folder_holds_the_pictures_and_nothing_else(tmp_path):
    paths = draw_scene(tmp_path / "new" / "room", num_images=3, size=(30, 20))
    assert sorted((tmp_path / "new" / "room").iterdir()) == paths
    for path in paths:
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((30, 20), "RGB", "PNG")


def test_drawing_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 images"):
        draw_scene(tmp_path / "room", num_images=0)
    assert not (tmp_path / "room").exists()
