"""How far predicted depth is from the true depth: AbsRel and delta < 1.25 (Eigen et al. 2014) after median alignment.

One factor per scene, median(true) / median(predicted) over the valid pixels of all views: the scale of a scene cannot
be seen in photos, but that its views share one scale can. No shift is fitted, and no view gets a factor of its own.
"""

import numpy as np
from torch import Tensor


def depth_accuracy(predicted: Tensor, true: Tensor) -> dict[str, float | None]:
    """Compare depth maps, scaled once per scene by the ratio of medians.

    Args:
        predicted: Depth along the camera's z axis [S, H, W], in any unit.
        true: Depth [S, H, W]; a pixel is valid where it is finite and positive.

    Returns:
        `depth_abs_rel`, the mean of |d - d*| / d*; `depth_delta_125`, the share with max(d / d*, d* / d) < 1.25, a
        depth of zero or below being a miss; `depth_scale`, the factor; `depth_valid_share`, the share of valid pixels;
        and as a control `constant_depth_abs_rel`, the AbsRel of predicting the same depth everywhere. The first three
        are None where a valid pixel's prediction is not finite or no positive factor exists.

    Raises:
        ValueError: another shape.
    """
    if true.ndim != 3 or predicted.shape != true.shape:
        shapes = f"{list(predicted.shape)} and {list(true.shape)}"
        raise ValueError(f"Predicted and true depth have shapes {shapes}; give two of [S, H, W].")
    predicted, true = (depth.detach().cpu().double().numpy() for depth in (predicted, true))
    valid = np.isfinite(true) & (true > 0)
    predicted, true = predicted[valid], true[valid]
    figures = dict.fromkeys(("depth_abs_rel", "depth_delta_125", "depth_scale", "constant_depth_abs_rel"))
    figures["depth_valid_share"] = float(valid.mean()) if valid.size else None
    if true.size == 0:
        return figures
    figures["constant_depth_abs_rel"] = _abs_rel(np.median(true), true)
    scale = _median_scale(predicted, true)
    return figures if scale is None else {**figures, **_errors(scale * predicted, true), "depth_scale": scale}


def _median_scale(predicted: np.ndarray, true: np.ndarray) -> float | None:
    if not np.isfinite(predicted).all():
        return None
    median = float(np.median(predicted))
    return float(np.median(true)) / median if median > 0 else None


def _errors(aligned: np.ndarray, true: np.ndarray) -> dict[str, float]:
    # Written without a division by the prediction, which may be zero or negative.
    within = (aligned < 1.25 * true) & (true < 1.25 * aligned)
    return {"depth_abs_rel": _abs_rel(aligned, true), "depth_delta_125": float(within.mean())}


def _abs_rel(depth: np.ndarray | float, true: np.ndarray) -> float:
    return float(np.mean(np.abs(depth - true) / true))
