"""Angles between a variant's cameras and those of the float32 outputs: not aligned, since both are the same model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vggt_quant.data.geometry import direction_angle, quaternion_to_matrix, rotation_angle
from vggt_quant.evaluation.tensor_errors import comparable
from vggt_quant.results.metric import Figures, Group, degrees
from vggt_quant.results.record import finite

SMALLEST_TRANSLATION = 1e-2
"""Shorter reference translations have no direction worth comparing; VGGT's unit is the scene's mean distance."""

GROUP: Group = "deviation"
METRICS = {
    "rotation_error_deg_mean": degrees(
        "rot.", "Angle between the camera rotations of the variant and of fp32, mean over frames.", column=20
    ),
    "rotation_error_deg_max": degrees("largest rotation error", "The same angle, largest of the frames."),
    "translation_angle_deg_mean": degrees(
        "translation angle",
        "Angle between the camera translations, mean over the frames whose fp32 translation is not near zero.",
    ),
    "translation_angle_deg_max": degrees("largest translation angle", "The same angle, largest of the frames."),
    "fov_error_deg_mean": degrees(
        "field-of-view error", "Difference of the vertical and horizontal fields of view, mean over frames."
    ),
}


def measure(outputs: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Figures:
    """The angles of the scene."""
    return camera_errors(known["pose_enc"], outputs["pose_enc"]) if "pose_enc" in known.keys() & outputs else {}


def camera_errors(reference_pose_enc: Tensor, candidate_pose_enc: Tensor) -> Figures:
    """Angles between predicted cameras and the reference's, in degrees, over all frames.

    Args:
        reference_pose_enc: [..., S, 9]: world-to-camera translation, quaternion (x, y, z, w), vertical and
            horizontal field of view in radians.
        candidate_pose_enc: The same shape.

    Returns:
        Rotation and translation-direction errors (mean, max) and the mean field-of-view error. All None when a pose
        is not finite or the shapes differ: a mean over the frames that survived would flatter the variant.
    """
    if reference_pose_enc.shape != candidate_pose_enc.shape or reference_pose_enc.numel() == 0:
        return dict.fromkeys(METRICS)
    assert reference_pose_enc.shape[-1] == 9
    reference, candidate = (comparable(p).reshape(-1, 9) for p in (reference_pose_enc, candidate_pose_enc))
    if not (torch.isfinite(reference).all() and torch.isfinite(candidate).all()):
        return dict.fromkeys(METRICS)
    rotations = rotation_angle(quaternion_to_matrix(reference[:, 3:7]), quaternion_to_matrix(candidate[:, 3:7]))
    has_direction = reference[:, :3].norm(dim=-1) > SMALLEST_TRANSLATION
    translations = _translation_angles(reference[has_direction, :3], candidate[has_direction, :3])
    fov = (reference[:, 7:] - candidate[:, 7:]).abs()
    rotation_mean, rotation_max = _mean_and_max(rotations)
    translation_mean, translation_max = _mean_and_max(translations)
    return {
        "rotation_error_deg_mean": rotation_mean,
        "rotation_error_deg_max": rotation_max,
        "translation_angle_deg_mean": translation_mean,
        "translation_angle_deg_max": translation_max,
        "fov_error_deg_mean": _mean_and_max(fov)[0],
    }


def _translation_angles(reference: Tensor, candidate: Tensor) -> Tensor:
    """Angles between vectors [N, 3] in radians; NaN, not 0, where the candidate is zero and has no direction."""
    angles = direction_angle(reference, candidate)
    return torch.where(candidate.norm(dim=-1) > 0, angles, torch.nan)


def _mean_and_max(radians: Tensor) -> tuple[float | None, float | None]:
    if radians.numel() == 0:
        return None, None
    angles = torch.rad2deg(radians)
    return finite(float(angles.mean())), finite(float(angles.max()))
