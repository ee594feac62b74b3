"""How far predicted depth is from the true depth: AbsRel and delta < 1.25 (Eigen et al. 2014) after median alignment.

One factor per scene, median(true) / median(predicted) over the valid pixels of all views, because photos do not
determine the scale of a scene. They do determine that all views share one scale, so there is no factor per view. No
shift is fitted.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vggt_quant.results.metric import Figures, Group, Metric, percent

LEGEND = "Depth: after one scale a scene."
GROUP: Group = "truth"
METRICS = {
    "depth_abs_rel": percent(
        "depth AbsRel",
        "Mean of |d - d*| / d*, d* being the true depth.",
        better="down",
        column=30,
        legend=LEGEND,
        panel="Depth vs ground truth",
    ),
    "depth_delta_125": percent(
        "depth <1.25x",
        "Share of the pixels within a factor of 1.25 of the true depth.",
        better="up",
        column=40,
        legend=LEGEND,
    ),
    "depth_scale": Metric(title="depth scale", meaning="The factor that brings the predicted depth to the true one."),
    "depth_valid_share": Metric(title="known depth", meaning="Share of the pixels whose depth is known."),
    "constant_depth_abs_rel": percent(
        "same depth everywhere",
        "AbsRel of one depth in all pixels, for which no photo is needed.",
        better="down",
        control_of="depth_abs_rel",
    ),
}


def measure(outputs: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Figures:
    """Compare the depth maps in the pixels whose depth is known."""
    return depth_accuracy(outputs["depth"], known["depths"]) if "depth" in outputs and "depths" in known else {}


def depth_accuracy(predicted: Tensor, true: Tensor) -> Figures:
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
    depths, truths = _as_numpy(predicted), _as_numpy(true)
    valid = np.isfinite(truths) & (truths > 0)
    depths, truths = depths[valid], truths[valid]
    figures: Figures = dict.fromkeys(("depth_abs_rel", "depth_delta_125", "depth_scale", "constant_depth_abs_rel"))
    figures["depth_valid_share"] = float(valid.mean()) if valid.size else None
    if truths.size == 0:
        return figures
    figures["constant_depth_abs_rel"] = _abs_rel(np.median(truths), truths)
    scale = _median_scale(depths, truths)
    return figures if scale is None else {**figures, **_errors(scale * depths, truths), "depth_scale": scale}


def _as_numpy(depth: Tensor) -> np.ndarray:
    return depth.detach().cpu().double().numpy()


def _median_scale(predicted: np.ndarray, true: np.ndarray) -> float | None:
    if not np.isfinite(predicted).all():
        return None
    median = float(np.median(predicted))
    return float(np.median(true)) / median if median > 0 else None


def _errors(aligned: np.ndarray, true: np.ndarray) -> dict[str, float]:
    # Written without a division by the prediction, which may be zero or negative.
    within = (aligned < 1.25 * true) & (true < 1.25 * aligned)
    return {"depth_abs_rel": _abs_rel(aligned, true), "depth_delta_125": float(within.mean())}


def _abs_rel(depth: np.ndarray | np.float64, true: np.ndarray) -> float:
    return float(np.mean(np.abs(depth - true) / true))
