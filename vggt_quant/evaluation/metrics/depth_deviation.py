"""How far a variant's depth is from that of the float32 outputs: AbsRel and delta < 1.25, Eigen et al. 2014."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vggt_quant.evaluation.tensor_errors import comparable
from vggt_quant.results.metric import Figures, Group, Metric, percent
from vggt_quant.results.record import finite

GROUP: Group = "deviation"
METRICS = {
    "depth_abs_rel": Metric(
        title="depth AbsRel",
        meaning="Mean of |d - d*| / d*, d* being the depth of fp32.",
        better="down",
        column=10,
        panel="Depth error vs fp32",
    ),
    "depth_delta_125": percent(
        "depth <1.25x", "Share of the pixels within a factor of 1.25 of the depth of fp32.", better="up"
    ),
}


def measure(outputs: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Figures:
    """The depth errors of the scene."""
    return depth_errors(known["depth"], outputs["depth"]) if "depth" in known.keys() & outputs else {}


def depth_errors(reference: Tensor, candidate: Tensor) -> Figures:
    """AbsRel = mean |d - d*| / d*, and the share with max(d / d*, d* / d) < 1.25, where d* is finite and positive.

    Both None when the shapes differ, no pixel is valid, or the variant's depth is not finite at a valid pixel.
    """
    if reference.shape != candidate.shape:
        return dict.fromkeys(METRICS)
    reference, candidate = comparable(reference), comparable(candidate)
    valid = torch.isfinite(reference) & (reference > 0)
    reference, candidate = reference[valid], candidate[valid]
    if reference.numel() == 0 or not torch.isfinite(candidate).all():
        return dict.fromkeys(METRICS)
    # Written without a division by the candidate: a depth of zero or below counts as a miss.
    within = (candidate < 1.25 * reference) & (reference < 1.25 * candidate)
    abs_rel = ((candidate - reference).abs() / reference).mean()
    return {"depth_abs_rel": finite(float(abs_rel)), "depth_delta_125": float(within.double().mean())}
