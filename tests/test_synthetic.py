"""Rendered rooms: exact geometry, matte colours, folders in ETH3D's layout, the same from the same seed."""

import dataclasses
from itertools import permutations

import numpy as np
import pycolmap
import pytest
import torch

from vggt_quant.data.geometry import unproject_depth
from vggt_quant.data.scene import find_scenes, load_scene
from vggt_quant.data.synthetic import draw_scenes
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms, cast, pixel_directions, render
from vggt_quant.data.synthetic.rooms import OBJECT_MARGIN, WALL_MARGIN, Draw, look_at, sample

HEIGHT, WIDTH = 56, 84
NUM_ROOMS, NUM_VIEWS = 3, 3
RGB_MEAN, RGB_STD, DEPTH_MEAN = 0.41100, 0.11718, 3.62587


@pytest.fixture(scope="module")
def drawn():
    rooms, cameras = sample(NUM_ROOMS, NUM_VIEWS, Draw(11), height=HEIGHT, width=WIDTH)
    return rooms, cameras, render(rooms, cameras, HEIGHT, WIDTH)


def project(points, cameras, room, view):
    """World points [..., 3] to pixels [..., 2] and z-depth [...] of one camera."""
    extrinsic, intrinsic = cameras.extrinsics[room, view], cameras.intrinsics[room, view]
    in_camera = points @ extrinsic[:, :3].T + extrinsic[:, 3]
    pixels = in_camera @ intrinsic.T
    return pixels[..., :2] / pixels[..., 2:], in_camera[..., 2]


def seen_in(drawn, room, first, second):
    """Where the second view shows the first one's pixels (row, column), and which of them nothing hides there."""
    _, cameras, views = drawn
    pixels, depth = project(views["world_points"][room, first], cameras, room, second)
    column, row = pixels.round().long().unbind(-1)
    inside = (depth > 0) & (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    where = (row.clamp(0, HEIGHT - 1), column.clamp(0, WIDTH - 1))
    # 3 % of depth: more than most surfaces change within a pixel, less than any object is thick.
    return where, inside & ((views["depth"][room, second][where] - depth).abs() < 0.03 * depth)


def test_depth_unprojects_to_the_world_points(drawn):
    _, cameras, views = drawn
    points = unproject_depth(views["depth"], cameras.extrinsics, cameras.intrinsics)
    # float32 coordinates of up to ten metres.
    torch.testing.assert_close(points.float(), views["world_points"], rtol=0, atol=2e-5)


def test_views_see_the_same_points_at_the_same_places_in_the_same_colours(drawn):
    _, cameras, views = drawn
    shares, distances, same, other = [], [], [], []
    for room in range(NUM_ROOMS):
        for first, second in permutations(range(NUM_VIEWS), 2):
            where, visible = seen_in(drawn, room, first, second)
            shares.append(visible.float().mean())
            there = views["world_points"][room, second][where][visible]
            distances.append((there - views["world_points"][room, first][visible]).norm(dim=-1))
            colours = views["rgb"][room, second].permute(1, 2, 0)[where][visible]
            here = views["rgb"][room, first].permute(1, 2, 0)[visible]
            same.append((colours - here).abs().mean())
            other.append((colours.roll(len(colours) // 2, dims=0) - here).abs().mean())
    assert 0.3 < torch.stack(shares).mean() < 0.7, "views overlap, and not completely"
    # Rounding to a pixel moves a point by up to half of one: 4 m / focal length 70 / 2 = 3 cm.
    assert torch.cat(distances).median() < 0.04
    assert torch.stack(same).mean() < 0.06, "half a pixel of texture is all that may differ"
    assert torch.stack(other).mean() > 3 * torch.stack(same).mean()


def test_every_ray_ends_on_the_nearest_surface_of_its_room(drawn):
    """Against the same question asked with small steps: no step before the end is inside anything or outside."""
    rooms, cameras, _ = drawn
    directions = pixel_directions(cameras, HEIGHT, WIDTH)[:, :, ::97]
    depths = cast(rooms, cameras.positions, directions).depths
    shares = torch.cat([torch.linspace(0.001, 0.999, 400), torch.tensor([1.001])])[:, None, None, None, None]
    points = cameras.positions[:, :, None] + shares * depths[..., None] * directions
    solid = is_solid(rooms, points)
    assert not solid[:-1].any(), "a ray passes through an object or a wall"
    # A ray that grazes an edge may be out again a millimetre later.
    assert solid[-1].float().mean() > 0.995, "rays end where nothing is"


def is_solid(rooms, points):
    """Whether points [steps, B, V, N, 3] are inside an object or outside of the room."""
    low, high = rooms.corners[:, 0, None, None], rooms.corners[:, 1, None, None]
    solid = ((points < low) | (points > high)).any(-1)
    for k in range(rooms.centers.shape[1]):
        axes, halves = rooms.axes[:, k], rooms.halves[:, k, None, None]
        local = torch.einsum("bij,sbvnj->sbvni", axes, points - rooms.centers[:, k, None, None]) / halves
        is_ball = rooms.is_ball[:, k, None, None]
        inside = torch.where(is_ball, local.norm(dim=-1) < 1, local.abs().amax(-1) < 1)
        solid |= inside & rooms.is_present[:, k, None, None]
    return solid


def test_a_wall_straight_ahead_has_the_depth_that_one_can_measure(drawn):
    rooms, cameras, _ = drawn
    empty = dataclasses.replace(rooms, is_present=torch.zeros_like(rooms.is_present))
    positions = torch.tensor([[0.5, 0.0, 1.0]]).expand(NUM_ROOMS, 1, 3)
    ahead = look_at(positions, positions + torch.tensor([1.0, 0.0, 0.0]), torch.zeros(NUM_ROOMS, 1))
    depth = render(empty, Cameras(extrinsics=ahead, intrinsics=cameras.intrinsics[:, :1]), HEIGHT, WIDTH)["depth"]
    expected = rooms.corners[:, 1, 0] - 0.5
    # z-depth of a plane that faces the camera is one number.
    torch.testing.assert_close(depth[:, 0, HEIGHT // 2, WIDTH // 2], expected, rtol=1e-6, atol=1e-6)


def test_no_camera_stands_in_a_wall_or_an_object():
    rooms, cameras = sample(200, 4, Draw(3), height=HEIGHT, width=WIDTH)
    low, high = rooms.corners[:, :1], rooms.corners[:, 1:]
    assert ((cameras.positions - low).amin() > WALL_MARGIN - 1e-4) and ((high - cameras.positions).amin() > 0.3)
    distance = (rooms.centers[:, :, None] - cameras.positions[:, None]).norm(dim=-1)
    gap = distance - rooms.halves.norm(dim=-1)[..., None]
    assert gap[rooms.is_present].min() > OBJECT_MARGIN
    assert rooms.is_present.float().mean() > 0.5, "most objects stay"


def test_the_same_seed_gives_the_same_rooms_and_another_one_others():
    one, again, other = (sample(2, 2, Draw(seed), height=HEIGHT, width=WIDTH)[0] for seed in (5, 5, 6))
    for field in dataclasses.fields(Rooms):
        assert torch.equal(getattr(one, field.name), getattr(again, field.name)), field.name
    assert not torch.equal(one.centers, other.centers)


def test_drawn_folders_are_read_as_eth3d_scenes_with_exact_truth(tmp_path):
    folders = draw_scenes(tmp_path, num_scenes=2, num_views=3, size=56, first_seed=7)
    assert find_scenes(tmp_path) == folders == [tmp_path / "room_0007", tmp_path / "room_0008"]
    rooms, cameras = sample(1, 3, Draw(8), height=56, width=56)
    views = render(rooms, cameras, 56, 56)
    scene = load_scene(folders[1], size=56)
    assert scene.kind == "eth3d"
    assert torch.equal(scene.truth.depths, views["depth"][0])
    # Twelve digits in the text of a float32.
    torch.testing.assert_close(scene.truth.extrinsics, cameras.extrinsics[0].double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(scene.truth.intrinsics, cameras.intrinsics[0].double(), rtol=0, atol=1e-6)
    assert (scene.images - views["rgb"][0]).abs().max() <= 0.5 / 255 + 1e-6, "8 bits a channel"


def test_colmap_itself_reads_a_drawn_folder_and_its_points_reproject(tmp_path):
    (folder,) = draw_scenes(tmp_path, num_scenes=1, num_views=4, size=112)
    model = pycolmap.Reconstruction(str(folder / "dslr_calibration_undistorted"))
    assert model.num_images() == 4 and model.num_points3D() > 100
    model.update_point_3d_errors()
    errors = [point.error for point in model.points3D.values()]
    # Coordinates have six digits behind the point, pixels four.
    assert max(errors) < 1e-3
    assert np.mean([point.track.length() for point in model.points3D.values()]) > 2, "points are seen by several views"


def test_drawing_again_replaces_a_folder_and_leaves_nothing_unfinished(tmp_path):
    first = draw_scenes(tmp_path, num_scenes=1, num_views=2, size=28)[0]
    (first / "stray.txt").write_text("from an earlier run")
    draw_scenes(tmp_path, num_scenes=1, num_views=2, size=28)
    assert [path.name for path in tmp_path.iterdir()] == ["room_0000"] and not (first / "stray.txt").exists()


def test_a_folder_that_was_not_drawn_is_left_alone(tmp_path):
    photo = tmp_path / "room_0000" / "holiday.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    with pytest.raises(ValueError, match="room_0000 is no drawn room"):
        draw_scenes(tmp_path, num_scenes=1, num_views=1, size=28)
    assert photo.read_bytes() == b"mine"


def test_rooms_look_as_they_did_when_the_small_model_was_trained():
    """Another texture or lamp would change how hard the frozen held-out rooms are, which are stored as parameters."""
    rooms, cameras = sample(3, 2, Draw(42), height=56, width=56)
    views = render(rooms, cameras, 56, 56)
    rgb, depth = views["rgb"], views["depth"]
    # Edges of textures move with the last bits of a processor; means of 19,000 pixels do not.
    assert rgb.mean().item() == pytest.approx(RGB_MEAN, abs=1e-3)
    assert rgb.std().item() == pytest.approx(RGB_STD, abs=1e-3)
    assert depth.mean().item() == pytest.approx(DEPTH_MEAN, rel=1e-3)


@pytest.mark.parametrize("bad", [{"num_scenes": 0}, {"num_views": 0}, {"size": -1}, {"first_seed": -1}])
def test_impossible_numbers_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="Cannot draw"):
        draw_scenes(tmp_path, **{"num_scenes": 1, **bad})
