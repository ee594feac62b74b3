"""Outputs against the truth: each against its own, unknown frames left out, no number for what is not finite."""

import pytest
import torch
from small_run import write_known_scenes

from vggt_quant.data.geometry import cameras_to_pose, unproject_depth
from vggt_quant.data.scene import load_scene
from vggt_quant.data.truth.frames import store_truth
from vggt_quant.evaluation import metrics

SIZE = (84, 112)


def judge(outputs, truth):
    """Every figure against the ground truth."""
    return metrics.measure("truth", outputs, truth)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """What is known of a scene of three photos."""
    folder = write_known_scenes(tmp_path_factory.mktemp("scenes"), "court", count=3)
    return store_truth(load_scene(folder / "court", size=112).truth)


def perfect(truth, *, scale=1.0, turn=None):
    """What a model without any error gives: all relative to its first camera, in a unit of its own."""
    extrinsics, intrinsics, depths = truth["extrinsics"], truth["intrinsics"], truth["depths"]
    points = unproject_depth(depths, extrinsics, intrinsics)
    first = extrinsics[0]
    rotation = extrinsics[:, :, :3] @ first[:, :3].mT
    translation = extrinsics[:, :, 3:] - rotation @ first[:, 3:]
    relative = torch.cat((rotation, scale * translation), dim=-1)
    # A pose encoding holds no principal point: it has to be the middle, as it is in these scenes.
    return {
        "pose_enc": cameras_to_pose(relative, intrinsics, SIZE)[None],
        "depth": scale * depths[None, ..., None],
        "world_points": (scale * (points @ first[:, :3].mT + first[:, 3]))[None],
        "depth_conf": torch.ones(1, 3, *SIZE),
    }


@pytest.mark.parametrize("scale", [1.0, 0.13])
def test_perfect_outputs_are_perfect_in_any_frame_and_unit(truth, scale):
    result = judge(perfect(truth, scale=scale), truth)
    assert result["pose_auc_3"] == result["rra_5"] == result["rta_5"] == 1
    # float32 depth maps of some metres hold 7 digits.
    assert result["depth_abs_rel"] < 1e-6 and result["point_error_of_scene_size"] < 1e-6
    assert result["depth_scale"] == pytest.approx(1 / scale)
    # The principal point is half a pixel beside the middle: 0.5 / 67 of 3 m is 2 cm.
    assert result["cloud_overall_mean"] < 0.02 and result["cloud_normal_consistency_mean"] > 0.99


def test_each_output_is_compared_with_its_own_truth(truth):
    """An error in one output shows in its figures and in no others."""
    good = judge(perfect(truth), truth)
    noise = torch.Generator().manual_seed(0)
    bad = {}
    for name in ("pose_enc", "depth", "world_points"):
        outputs = perfect(truth)
        outputs[name] = outputs[name] * (1 + 0.2 * torch.randn(outputs[name].shape, generator=noise))
        after = judge(outputs, truth)
        bad[name] = {figure for figure, value in good.items() if after[figure] != value}
    assert {"pose_auc_5", "rotation_error_deg_median", "cloud_overall_mean"} <= bad["pose_enc"]
    assert {"depth_abs_rel", "depth_delta_125", "cloud_overall_mean"} <= bad["depth"]
    assert bad["world_points"] == {"point_error_of_scene_size"}
    assert not any("depth" in figure or "point" in figure for figure in bad["pose_enc"])
    assert not any("pose" in figure or "point" in figure for figure in bad["depth"])


def test_the_cloud_is_that_of_the_predicted_cameras(truth):
    """With the true cameras in their place, wrong ones would not show."""
    outputs = perfect(truth)
    outputs["pose_enc"][..., 7:] *= 1.3
    wrong, right = judge(outputs, truth), judge(perfect(truth), truth)
    assert wrong["pose_auc_3"] == 1, "the field of view is no part of a pose"
    assert wrong["cloud_overall_mean"] > 3 * right["cloud_overall_mean"]


@pytest.mark.parametrize("frame", [0, 2])
def test_frames_without_a_pose_are_left_out_of_pairs_and_points(truth, frame):
    outputs = perfect(truth)
    outputs["world_points"][:, frame] = 0
    outputs["pose_enc"][:, frame, :3] += 5
    partial = {**truth, "extrinsics": truth["extrinsics"].clone()}
    partial["extrinsics"][frame] = torch.nan
    result = judge(outputs, partial)
    assert (result["num_pairs"], result["pose_auc_3"]) == (1, 1.0)
    assert result["point_error_of_scene_size"] < 1e-6
    assert result["depth_valid_share"] == 1, "depth needs no pose"


def test_only_what_is_known_is_judged(truth):
    outputs = perfect(truth)
    poses = judge(outputs, {"extrinsics": truth["extrinsics"]})
    assert poses["pose_auc_30"] == 1 and poses["depth_abs_rel"] is poses["cloud_overall_mean"] is None
    depth = judge(outputs, {"depths": truth["depths"]})
    assert depth["depth_delta_125"] == 1 and depth["pose_auc_30"] is depth["point_error_of_scene_size"] is None
    blind = {**truth, "depths": torch.zeros_like(truth["depths"])}
    nothing = judge(outputs, blind)
    assert nothing["depth_valid_share"] == 0 and nothing["depth_abs_rel"] is nothing["cloud_overall_mean"] is None


def test_an_output_that_is_not_finite_has_no_figure_and_flatters_nobody(truth):
    outputs = perfect(truth)
    for name in ("depth", "world_points"):
        outputs[name][0, 1, 5, 5] = torch.nan
    outputs["pose_enc"][0, 1] = torch.nan
    result = judge(outputs, truth)
    assert result["depth_abs_rel"] is result["point_error_of_scene_size"] is result["cloud_overall_mean"] is None
    assert result["pose_auc_30"] == pytest.approx(1 / 3), "the pairs of a camera without a pose are missed"
    assert result["constant_depth_abs_rel"] > 0
