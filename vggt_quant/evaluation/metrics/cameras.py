"""How far predicted cameras are from the true ones: relative poses of all pairs of views, the Co3D protocol.

A relative pose does not depend on the world frame, and the direction of its translation does not depend on the scene's
scale, so no alignment is needed. Each pair i < j gives two angles: between the relative rotations, and between the
relative translations as camera i sees them (so the order of views matters a little, as in VGGT's evaluation).
RRA@t and RTA@t are the shares of pairs whose angle is under t degrees. The error of a pair is the larger angle; its
share under 1, 2, ..., T degrees, averaged, is AUC@T (histogram of 1-degree bins, mean of its cumulative sum), as in the
evaluations of PoseDiffusion (Wang et al. 2023) and VGGT (Wang et al. 2025).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vggt_quant.data.geometry import direction_angle, pose_to_cameras, rotation_angle
from vggt_quant.results.metric import Figures, Group, Metric, degrees, percent

AUC_DEGREES = (30, 15, 5, 3)
SHARE_DEGREES = (5, 15, 30)
MISSED = 180.0
"""Error in degrees of a pair that the model gave no pose: it counts, as wrong as an angle can be."""
SMALLEST_BASELINE = 1e-4
"""A true baseline up to this part of the scene's largest has no direction: float32 poses would turn it by a degree."""
ROUNDINGS = 16
"""Nor has one up to this many rounding errors of the true camera centres, as when a camera only turns."""


COLUMNS = {30: 10, 5: 20}
LEGEND = "AUC: camera poses of all pairs of images, errors up to 30 (5) degrees count."
GROUP: Group = "truth"
METRICS = {
    "num_pairs": Metric(title="pairs of images", meaning="Pairs of images whose poses are known.", is_count=True),
    **{
        f"pose_auc_{limit}": percent(
            f"pose AUC@{limit}",
            f"Share of the pairs whose larger angle is under 1, 2, ... {limit} degrees, averaged.",
            better="up",
            column=COLUMNS.get(limit),
            legend=LEGEND if limit in COLUMNS else "",
            panel="Cameras vs ground truth" if limit in COLUMNS else None,
        )
        for limit in AUC_DEGREES
    },
    **{
        f"{name}_{limit}": percent(
            f"{name.upper()}@{limit}", f"Share of the pairs whose {what} is off by less.", better="up"
        )
        for name, what in (("rra", "relative rotation"), ("rta", "translation direction"))
        for limit in SHARE_DEGREES
    },
    "rotation_error_deg_median": degrees("rotation error", "Median of the pairs' errors of relative rotation."),
    "direction_error_deg_median": degrees("direction error", "Median of the pairs' errors of direction."),
}


def measure(outputs: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Figures:
    """Compare the poses of the frames whose pose is known."""
    if "pose_enc" not in outputs or "extrinsics" not in known:
        return {}
    extrinsics = known["extrinsics"]
    has_pose = extrinsics.isfinite().all(-1).all(-1)
    # The size of the images decides the intrinsics only.
    cameras, _ = pose_to_cameras(outputs["pose_enc"].double(), (1, 1))
    return pose_accuracy(cameras[has_pose], extrinsics[has_pose])


def pose_accuracy(predicted: Tensor, true: Tensor, *, fold_sign: bool = True) -> Figures:
    """Compare the relative poses of all pairs of views.

    Args:
        predicted: Extrinsics [S, 3, 4], world to camera, OpenCV axes, in any world frame and unit. The pairs of a view
            that is not finite are missed, not dropped; so is the direction of a pair predicted at one place.
        true: Extrinsics [S, 3, 4] in any other frame and unit. A pair that was taken from (nearly) one place has no
            direction: its rotation alone is its error, and RTA leaves it out.
        fold_sign: t and -t count as the same direction, as in both evaluations named above, so that no direction is
            more than 90 degrees off.

    Returns:
        `num_pairs`; `pose_auc_30`, `_15`, `_5`, `_3`; `rra_5`, `_15`, `_30`; `rta_5`, `_15`, `_30` (shares, 0 to 1);
        `rotation_error_deg_median`, `direction_error_deg_median`. Without a pair `num_pairs` is 0 and the rest None;
        without a pair that has a direction the RTA and the median direction are None.

    Raises:
        ValueError: another shape, or true poses that are not finite.
    """
    _check(predicted, true)
    rounding = torch.finfo(torch.promote_types(true.dtype, torch.float32)).eps
    predicted, true = (extrinsic.detach().cpu().double() for extrinsic in (predicted, true))
    # One NaN makes all angles of a view NaN; an infinite translation would leave its rotation looking sound.
    predicted = predicted.where(torch.isfinite(predicted).all((-2, -1), keepdim=True), math.nan)
    rotation, baseline = _relative_poses(predicted)
    true_rotation, true_baseline = _relative_poses(true)
    has_direction = _has_direction(true_baseline.norm(dim=-1), rounding * true[..., 3].norm(dim=-1))

    rotation_error = _degrees(rotation_angle(true_rotation, rotation))
    direction_error = direction_angle(true_baseline, baseline)
    if fold_sign:
        direction_error = torch.minimum(direction_error, math.pi - direction_error)
    direction_error = _degrees(direction_error.where(baseline.norm(dim=-1) > 0, math.nan))
    error = torch.maximum(rotation_error, direction_error.where(has_direction, 0.0))
    direction_error = direction_error[has_direction]
    return {
        "num_pairs": len(error),
        **{f"pose_auc_{degrees}": _area_under_curve(error, degrees) for degrees in AUC_DEGREES},
        **{f"rra_{degrees}": _share_under(rotation_error, degrees) for degrees in SHARE_DEGREES},
        **{f"rta_{degrees}": _share_under(direction_error, degrees) for degrees in SHARE_DEGREES},
        "rotation_error_deg_median": _median(rotation_error),
        "direction_error_deg_median": _median(direction_error),
    }


def _check(predicted: Tensor, true: Tensor) -> None:
    if true.ndim != 3 or true.shape[1:] != (3, 4) or predicted.shape != true.shape:
        shapes = f"{list(predicted.shape)} and {list(true.shape)}"
        raise ValueError(f"Predicted and true extrinsics have shapes {shapes}; give two of [S, 3, 4].")
    bad = int((~torch.isfinite(true)).any(-1).any(-1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(true)} true poses are not finite; leave those views out.")


def _relative_poses(extrinsic: Tensor) -> tuple[Tensor, Tensor]:
    """Of all pairs i < j the rotation [P, 3, 3] and translation [P, 3] that take camera j's coordinates to camera i's.

    The translation is written with the centres, R_i (c_j - c_i), so that equal poses give exactly zero.
    """
    rotation = extrinsic[..., :3]
    centre = -(rotation.mT @ extrinsic[..., 3:]).squeeze(-1)
    i, j = torch.triu_indices(len(extrinsic), len(extrinsic), offset=1)
    return rotation[i] @ rotation[j].mT, (rotation[i] @ (centre[j] - centre[i]).unsqueeze(-1)).squeeze(-1)


def _has_direction(baseline: Tensor, rounding: Tensor) -> Tensor:
    """Which baselines [P] are long enough, given the rounding errors [S] of the centres."""
    if not len(baseline):
        return baseline > 0
    return (baseline > SMALLEST_BASELINE * baseline.max()) & (baseline > ROUNDINGS * rounding.max())


def _degrees(radians: Tensor) -> Tensor:
    return torch.rad2deg(radians).nan_to_num(nan=MISSED)


def _share_under(degrees: Tensor, limit: float) -> float | None:
    return float((degrees < limit).double().mean()) if len(degrees) else None


def _area_under_curve(degrees: Tensor, limit: int) -> float | None:
    """The mean of a cumulative histogram is the mean share under each upper edge of its bins."""
    if not len(degrees):
        return None
    return sum(float((degrees < edge).double().mean()) for edge in range(1, limit + 1)) / limit


def _median(degrees: Tensor) -> float | None:
    return float(degrees.quantile(0.5)) if len(degrees) else None
