"""How far predicted points are from the true ones, after the best similarity over the valid pixels (Umeyama 1991).

Each pixel has a predicted and a true point, so the alignment is a closed formula. Other evaluations add ICP. It is left
out on purpose, because it pairs points again by distance: it slides a cloud along its surfaces and hides the errors
that are measured here. So figures are larger than those of protocols with ICP and cannot be compared with them.

Accuracy is the distance from a predicted point to the nearest true one, completeness the reverse, overall the mean of
both, normal consistency the mean |n . n'| of such neighbours: the definitions of DTU (Jensen et al. 2014) and of
Occupancy Networks (Mescheder et al. 2019).
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from vggt_quant.data.geometry import pose_to_cameras, umeyama, unproject_depth
from vggt_quant.results.metric import Figures, Group, centimetres, percent

CLOUD_FIGURES = (
    *("cloud_accuracy_mean", "cloud_accuracy_median", "cloud_completeness_mean", "cloud_completeness_median"),
    *("cloud_overall_mean", "cloud_normal_consistency_mean"),
)


LEGEND = "Points: after the best similarity. Point error: the model's own points. Cloud error: its depth and cameras."
GROUP: Group = "truth"
METRICS = {
    "point_error_of_scene_size": percent(
        "point error",
        "Mean distance of the model's own world_points to the true ones after the best similarity, as a part of the "
        "scene's size: the mean distance of the true points to the first camera.",
        better="down",
        of="of scene",
        column=50,
        legend=LEGEND,
    ),
    "cloud_accuracy_mean": centimetres("cloud accuracy", "Mean distance of a predicted point to the nearest true one."),
    "cloud_accuracy_median": centimetres("median cloud accuracy", "Median of the same distance."),
    "cloud_completeness_mean": centimetres(
        "cloud completeness", "Mean distance of a true point to the nearest predicted one."
    ),
    "cloud_completeness_median": centimetres("median cloud completeness", "Median of the same distance."),
    "cloud_overall_mean": centimetres(
        "cloud error", "Mean of cloud accuracy and cloud completeness.", column=60, legend=LEGEND
    ),
    "cloud_normal_consistency_mean": percent(
        "normal consistency", "Mean |n . n'| of the normals of nearest points.", better="up"
    ),
}


def measure(outputs: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Figures:
    """Compare the points of the pixels whose depth is known, in frames whose camera is known.

    Points are judged twice: the model's own `world_points`, pixel by pixel; and the cloud that its depth gives when
    unprojected with its own cameras (not the true ones), which is what VGGT's authors call "depth + camera" and find
    more accurate. True points are the true depth unprojected with the true cameras.
    """
    if not {"extrinsics", "intrinsics", "depths"} <= known.keys():
        return {}
    extrinsics, intrinsics, depths = known["extrinsics"], known["intrinsics"], known["depths"]
    points = unproject_depth(depths, extrinsics, intrinsics)
    valid = (depths > 0) & points.isfinite().all(-1)
    if not valid.any():
        return {}
    figures: Figures = {}
    if "world_points" in outputs:
        origin = _first_centre(extrinsics)
        figures["point_error_of_scene_size"] = point_error(outputs["world_points"], points, valid, origin)
    if {"depth", "pose_enc"} <= outputs.keys():
        cameras = pose_to_cameras(outputs["pose_enc"].double(), (depths.shape[-2], depths.shape[-1]))
        figures |= cloud_accuracy(unproject_depth(outputs["depth"], *cameras), points, valid)
    return figures


def point_error(predicted: Tensor, true: Tensor, valid: Tensor, origin: Tensor) -> float | None:
    """Mean distance between predicted and true points of the same pixel, as a part of the scene's size.

    Args:
        predicted: Point maps [S, H, W, 3] in any frame and unit.
        true: Point maps [S, H, W, 3]; finite where valid.
        valid: Pixels that count, bool [S, H, W].
        origin: The first camera's true centre [3]; the mean distance of the true valid points to it is the size.

    Returns:
        0 for a perfect prediction; None where a valid pixel's prediction is not finite or no alignment is determined
        (`vggt_quant.data.geometry.umeyama` says when).

    Raises:
        ValueError: another shape, or an origin or a valid true point that is not finite.
    """
    predicted, true, valid = _on_cpu(predicted, true, valid)
    if origin.shape != (3,) or not torch.isfinite(origin).all():
        raise ValueError(f"The origin is {origin.tolist()}; give the first camera's centre, three finite numbers.")
    similarity = _similarity(predicted[valid], true[valid])
    if similarity is None:
        return None
    size = (true[valid] - origin.detach().cpu().double()).norm(dim=-1).mean()
    return float((_move(predicted[valid], similarity) - true[valid]).norm(dim=-1).mean() / size)


def cloud_accuracy(
    predicted: Tensor, true: Tensor, valid: Tensor, *, max_points: int = 20_000, seed: int = 0
) -> Figures:
    """Compare two clouds of points by nearest neighbours, both ways.

    The neighbours are sought among all valid points; only the points that seek are sampled, the same pixels on both
    sides, because sampling the others would lengthen every distance. Normals are cross products of the differences
    between a pixel's neighbours, right minus left and below minus above, where all five are valid; neighbours without
    a normal do not count, and where the prediction has collapsed to no surface at all the consistency is 0.

    Args:
        predicted: Point maps [S, H, W, 3] in any frame and unit.
        true: Point maps [S, H, W, 3]; finite where valid.
        valid: Pixels that count, bool [S, H, W].
        max_points: How many points seek their neighbours.
        seed: Which ones.

    Returns:
        `cloud_accuracy_mean`, `cloud_accuracy_median`, `cloud_completeness_mean`, `cloud_completeness_median` and
        `cloud_overall_mean` in the unit of the truth; `cloud_normal_consistency_mean`, 0 to 1, the mean of both ways
        (None without normals). All None as for `point_error`.

    Raises:
        ValueError: another shape, or true points that are valid but not finite.
    """
    predicted, true, valid = _on_cpu(predicted, true, valid)
    similarity = _similarity(predicted[valid], true[valid])
    if similarity is None:
        return dict.fromkeys(CLOUD_FIGURES)
    points = [_move(predicted[valid], similarity).numpy(), true[valid].numpy()]
    # Normals turn with their cloud; its scale and shift do not change them.
    normals = [(_normals(predicted)[valid] @ similarity[1].mT).numpy(), _normals(true)[valid].numpy()]
    has_normal = _has_neighbours(valid)[valid].numpy() & normals[1].any(-1)
    chosen = _choose(len(points[0]), max_points, seed)
    accuracy, accuracy_normals = _seek(chosen, points, normals, has_normal)
    completeness, completeness_normals = _seek(chosen, points[::-1], normals[::-1], has_normal)
    consistency = None
    if accuracy_normals is not None and completeness_normals is not None:
        consistency = (accuracy_normals + completeness_normals) / 2
    means = float(accuracy.mean()), float(completeness.mean())
    return {
        "cloud_accuracy_mean": means[0],
        "cloud_accuracy_median": float(np.median(accuracy)),
        "cloud_completeness_mean": means[1],
        "cloud_completeness_median": float(np.median(completeness)),
        "cloud_overall_mean": sum(means) / 2,
        "cloud_normal_consistency_mean": consistency,
    }


def _first_centre(extrinsics: Tensor) -> Tensor:
    """Where the first camera that is known stands, [3]."""
    first = extrinsics[extrinsics.isfinite().all(-1).all(-1)][0]
    return -first[:, :3].mT @ first[:, 3]


def _on_cpu(predicted: Tensor, true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if valid.ndim != 3 or not predicted.shape == true.shape == (*valid.shape, 3):
        shapes = [list(tensor.shape) for tensor in (predicted, true, valid)]
        raise ValueError(f"Predicted, true and valid have shapes {shapes}; give [S, H, W, 3] twice and [S, H, W].")
    predicted, true, valid = predicted.detach().cpu().double(), true.detach().cpu().double(), valid.cpu()
    bad = int((~torch.isfinite(true[valid])).any(-1).sum())
    if bad:
        raise ValueError(f"{bad} true points are valid but not finite; leave them out of the mask.")
    return predicted, true, valid


def _similarity(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Scale, rotation, translation that bring predicted points [N, 3] onto the true ones, where they are determined."""
    try:
        return umeyama(predicted, true)
    except ValueError:
        return None


def _move(points: Tensor, similarity: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    scale, rotation, translation = similarity
    return scale * points @ rotation.mT + translation


def _normals(points: Tensor) -> Tensor:
    """Unit normals [S, H, W, 3] of point maps; zero at the rim and where the points span no surface."""
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    normals = torch.zeros_like(points)
    normals[:, 1:-1, 1:-1] = F.normalize(torch.linalg.cross(across, down), dim=-1, eps=torch.finfo(points.dtype).tiny)
    return normals


def _has_neighbours(valid: Tensor) -> Tensor:
    """Pixels [S, H, W] that are valid together with the four around them."""
    row = valid[:, 1:-1, 1:-1] & valid[:, 1:-1, 2:] & valid[:, 1:-1, :-2]
    surrounded = torch.zeros_like(valid)
    surrounded[:, 1:-1, 1:-1] = row & valid[:, 2:, 1:-1] & valid[:, :-2, 1:-1]
    return surrounded


def _choose(count: int, max_points: int, seed: int) -> np.ndarray:
    if count <= max_points:
        return np.arange(count)
    return np.random.default_rng(seed).choice(count, max_points, replace=False)


def _seek(
    chosen: np.ndarray, points: list[np.ndarray], normals: list[np.ndarray], has_normal: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """From chosen points of the first cloud to the nearest of the second: distances, and mean |n . n'|."""
    distance, nearest = cKDTree(points[1]).query(points[0][chosen])
    counts = has_normal[chosen] & has_normal[nearest]
    cosine = np.abs(np.sum(normals[0][chosen] * normals[1][nearest], axis=-1))[counts]
    return distance, float(cosine.mean()) if len(cosine) else None
