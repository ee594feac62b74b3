"""The tools that trained the small model: what they compute is the model, and what they judge by is frozen."""

import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parent.parent / "tools" / "tiny"
sys.path.insert(0, str(TOOLS))

import fast_blocks  # noqa: E402
import held_out  # noqa: E402
import losses  # noqa: E402
import muon  # noqa: E402
import state  # noqa: E402
import train  # noqa: E402

from vggt_quant.data.geometry import pose_to_cameras  # noqa: E402
from vggt_quant.data.synthetic.raycasting import render  # noqa: E402
from vggt_quant.data.synthetic.rooms import Draw, sample  # noqa: E402
from vggt_quant.model import NAMED, VGGT, dpt_head  # noqa: E402


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = train.initialise(VGGT(NAMED["tiny"])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def scene():
    rooms, cameras = sample(2, 3, Draw(1), height=28, width=28)
    return cameras, render(rooms, cameras, 28, 28)


def test_the_held_out_rooms_are_the_frozen_ones():
    rooms, cameras = held_out.load()
    assert len(rooms.corners) == held_out.NUM_ROOMS == 120
    assert cameras.extrinsics.shape[1] == held_out.NUM_VIEWS == 4


def test_other_held_out_rooms_are_refused(monkeypatch, tmp_path):
    changed = tmp_path / "held_out.safetensors"
    changed.write_bytes(held_out.FILE.read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(held_out, "FILE", changed)
    with pytest.raises(ValueError, match="must not change"):
        held_out.load()


@torch.no_grad()
def test_blocks_in_pieces_compute_what_the_model_computes(model):
    images = torch.rand(2, 3, 3, 112, 112)
    expected = model(images)
    fast_blocks.use_fast_blocks(model, compiled=False)
    found = model(images)
    for name in ("pose_enc", "depth", "world_points"):
        # The same operations on other layouts: sums may be taken in another order.
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [((8, 8), (15, 21)), ((16, 12), (32, 24)), ((4, 4), (4, 4))])
def test_resizing_by_matrices_is_the_models_resizing(size):
    maps = torch.randn(2, 3, *size[0])
    torch.testing.assert_close(train.resize(maps, size[1]), dpt_head.resize(maps, size[1]), rtol=1e-5, atol=1e-5)


def test_targets_are_in_the_first_cameras_axes_with_a_mean_distance_of_one(scene):
    cameras, views = scene
    truth = losses.targets(views, cameras)
    torch.testing.assert_close(truth["points"].norm(dim=-1).mean(dim=(1, 2, 3)), torch.ones(2), rtol=1e-5, atol=0)
    extrinsics, intrinsics = pose_to_cameras(truth["pose"].double(), (28, 28))
    first = torch.eye(3, 4, dtype=torch.float64)
    torch.testing.assert_close(extrinsics[:, 0], first.expand(2, 3, 4), rtol=0, atol=1e-5)
    in_camera = (extrinsics[..., None, None, :, :3] * truth["points"][..., None, :]).sum(-1)
    in_camera = in_camera + extrinsics[..., None, None, :, 3]
    # float32 points a unit away.
    torch.testing.assert_close(in_camera[..., 2].float(), truth["depth"], rtol=0, atol=1e-5)
    torch.testing.assert_close(intrinsics, cameras.intrinsics.double(), rtol=1e-5, atol=1e-4)


def test_the_truth_has_less_loss_than_anything_near_it(scene):
    cameras, views = scene
    truth = losses.targets(views, cameras)
    depth, points = truth["depth"].flatten(0, 1), truth["points"].flatten(0, 1)
    confidence = torch.zeros_like(depth)[:, None]
    inverse = points.sign() * points.abs().log1p()

    def all_losses(shift):
        return (
            losses.camera_loss([truth["pose"] + shift], truth["pose"]),
            losses.depth_loss(torch.cat([(depth.log() + shift)[:, None], confidence], 1), depth),
            losses.point_loss(torch.cat([inverse.movedim(-1, 1) + shift, confidence], 1), points),
        )

    for best, worse in zip(all_losses(0.0), all_losses(0.05), strict=True):
        assert best < worse


def test_doubtful_pixels_may_say_so():
    """With confidence 1 + exp(c), alpha / error is the best one: small errors want more of it than large ones."""
    logits = torch.linspace(-5, 5, 101)
    for error, expected in ((0.01, 20.0), (0.1, 2.0)):
        values = torch.stack([losses._weighted(torch.tensor(error), c) for c in logits])
        assert 1 + logits[values.argmin()].exp() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 32), (1, 32, 96)])
def test_an_orthogonalised_step_has_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalise(torch.randn(shape)).float())
    # The quintic of the paper ends between 0.7 and 1.2; the smallest values of a random square matrix lag behind.
    assert values.max() < 1.3 and values.median() > 0.6


def test_muon_walks_down_a_quadratic():
    torch.manual_seed(0)
    target, weight = torch.randn(32, 32), torch.nn.Parameter(torch.zeros(32, 32))
    optimizer = muon.Muon([("layer.weight", weight)], decay=0.0)
    start = (weight - target).square().sum().item()
    for _ in range(120):
        weight.grad = 2 * (weight.detach() - target)
        optimizer.step(0.1)
    assert (weight - target).square().sum().item() < 0.1 * start


def test_a_state_survives_a_round_trip_in_shards_that_travel(model, tmp_path):
    state.write_state(model, {"step": 7, "seconds": 1.5}, tmp_path)
    weights, progress = state.read_state(tmp_path)
    assert progress == {"step": 7, "seconds": 1.5}
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor.bfloat16().float()), name
    shards = list(tmp_path.glob("*.safetensors"))
    assert max(path.stat().st_size for path in shards) < 16 * 2**20
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 45 * 2**20


@pytest.mark.timeout(300)
def test_training_resumes_from_its_own_state(tmp_path, monkeypatch):
    """A few steps on the CPU, twice: the second call goes on where the first one stopped."""
    rooms, cameras = held_out.load()
    monkeypatch.setattr(train, "load", lambda device: (held_out.part(rooms, 0, 1), held_out.part(cameras, 0, 1)))
    monkeypatch.setattr(train, "STEPS_PER_DRAW", 1)
    monkeypatch.setattr(train, "VIEWS_PER_SCENE", (2,))
    monkeypatch.setattr(dpt_head, "resize", dpt_head.resize)
    common = ["train.py", "--seconds", "1000", "--at-most", "0.1", "--views", "6", "--out"]
    monkeypatch.setattr(sys, "argv", [*common, str(tmp_path / "first")])
    train.main()
    first, progress = state.read_state(tmp_path / "first")
    monkeypatch.setattr(sys, "argv", [*common, str(tmp_path / "second"), "--resume", str(tmp_path / "first")])
    train.main()
    second, later = state.read_state(tmp_path / "second")
    assert later["step"] == progress["step"] + 10 and later["runs"] == 2
    assert later["seconds"] > progress["seconds"] > 0 and len(later["curve"]) == 2
    name = "aggregator.frame_blocks.0.attn.qkv.weight"
    moved = (second[name] - first[name]).norm() / first[name].norm()
    assert 0 < moved < 0.05, "it goes on from the stored weights, not from the start"
