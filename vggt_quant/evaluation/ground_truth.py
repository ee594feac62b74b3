"""How far a model's outputs are from a scene's ground truth: outputs + truth -> TruthAccuracy.

Cameras are judged as they are predicted. Points are judged twice: the model's own `world_points`, pixel by pixel; and
the cloud that its depth gives when unprojected with its own cameras (not the true ones), which is what VGGT's authors
call "depth + camera" and find more accurate. True points are the true depth unprojected with the true cameras.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vggt_quant.data.geometry import pose_to_cameras, unproject_depth
from vggt_quant.evaluation import metrics
from vggt_quant.results.scene_schema import TruthAccuracy

JUDGED = ("pose_enc", "depth", "world_points")


def judge(outputs: Mapping[str, Any], truth: Mapping[str, Tensor], *, unit: str) -> TruthAccuracy:
    """Compare the outputs of one scene with all that is known of it.

    Args:
        outputs: The model's: `pose_enc` [1, S, 9], `depth` [1, S, H, W, 1], `world_points` [1, S, H, W, 3]; what is not
            there is not judged.
        truth: Any of `extrinsics` [S, 3, 4], `intrinsics` [S, 3, 3] and `depths` [S, H, W], as `scenes.Truth` has them:
            NaN in the frames without a camera, 0 in the pixels without a depth.
        unit: Of the truth.
    """
    predicted = {name: outputs[name][0].detach().cpu() for name in JUDGED if name in outputs}
    if "depth" in predicted:
        predicted["depth"] = predicted["depth"].squeeze(-1)
    return TruthAccuracy(
        unit=unit, **_judge_poses(predicted, truth), **_judge_depth(predicted, truth), **_judge_points(predicted, truth)
    )


def _judge_poses(predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float | None]:
    if "pose_enc" not in predicted or "extrinsics" not in truth:
        return {}
    extrinsics = truth["extrinsics"]
    has_pose = extrinsics.isfinite().all(-1).all(-1)
    # The size of the images decides the intrinsics only.
    cameras, _ = pose_to_cameras(predicted["pose_enc"].double(), (1, 1))
    return metrics.pose_accuracy(cameras[has_pose], extrinsics[has_pose])


def _judge_depth(predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float | None]:
    if "depth" not in predicted or "depths" not in truth:
        return {}
    return metrics.depth_accuracy(predicted["depth"], truth["depths"])


def _judge_points(predicted: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float | None]:
    if not {"extrinsics", "intrinsics", "depths"} <= truth.keys():
        return {}
    extrinsics, intrinsics, depths = truth["extrinsics"], truth["intrinsics"], truth["depths"]
    points = unproject_depth(depths, extrinsics, intrinsics)
    valid = (depths > 0) & points.isfinite().all(-1)
    if not valid.any():
        return {}
    figures: dict[str, float | None] = {}
    if "world_points" in predicted:
        origin = _first_centre(extrinsics)
        figures["point_error_of_scene_size"] = metrics.point_error(predicted["world_points"], points, valid, origin)
    if {"depth", "pose_enc"} <= predicted.keys():
        cameras = pose_to_cameras(predicted["pose_enc"].double(), depths.shape[-2:])
        figures |= metrics.cloud_accuracy(unproject_depth(predicted["depth"], *cameras), points, valid)
    return figures


def _first_centre(extrinsics: Tensor) -> Tensor:
    """Where the first camera that is known stands, [3]."""
    first = extrinsics[extrinsics.isfinite().all(-1).all(-1)][0]
    return -first[:, :3].mT @ first[:, 3]
