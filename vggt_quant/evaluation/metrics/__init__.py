"""Accuracy metrics: one metric, or a small family, per file, found by file name.

Every file here whose name does not begin with `_` has

    GROUP                       "deviation": from the float32 outputs; "truth": from the ground truth of the scene
    METRICS                     name -> `results.metric.Metric`: title, unit, direction, where it is shown
    measure(outputs, known)     its figures in one scene, name -> value

`outputs` holds the model's outputs that are tensors, on the CPU and without their batch dimension: `pose_enc` [S, 9],
`depth` [S, H, W], `world_points` [S, H, W, 3], ...; a model without a head lacks its outputs. `known` holds for
"deviation" the float32 outputs in the same form, for "truth" any of `extrinsics` [S, 3, 4], `intrinsics` [S, 3, 3] and
`depths` [S, H, W], NaN in the frames without a camera and 0 in the pixels without a depth.

A figure that cannot be computed is None or left out: no valid pixel, one view, an output that is not finite. A mean
over the rest would flatter a broken variant. Figures are computed on the CPU in float64.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

from vggt_quant.results.metric import Figures, Group, Metrics


def names() -> list[str]:
    """All metric files, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def described() -> Metrics:
    """What every metric is, by group and name."""
    metrics: Metrics = {"deviation": {}, "truth": {}}
    for module in _modules():
        for name, metric in module.METRICS.items():
            assert name not in metrics[module.GROUP], f"{module.__name__} declares {name}, as another file does"
            metrics[module.GROUP][name] = metric
    return metrics


def measure(group: Group, outputs: Mapping[str, Any], known: Mapping[str, Any]) -> Figures:
    """Every figure of a group in one scene; None where it cannot be had.

    Args:
        group: What the outputs are compared with.
        outputs: As the model gives them.
        known: The float32 outputs as the model gave them, or the tensors of the ground truth.
    """
    seen = plain(outputs)
    compared = plain(known) if group == "deviation" else known
    figures: Figures = {}
    for module in _modules():
        if group == module.GROUP:
            made = module.measure(seen, compared)
            assert made.keys() <= module.METRICS.keys(), f"{module.__name__} does not declare all of {sorted(made)}"
            figures |= dict.fromkeys(module.METRICS) | made
    return figures


def plain(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The outputs that are tensors, on the CPU, without the batch dimension, depth without its last one."""
    tensors = {name: value[0].detach().cpu() for name, value in outputs.items() if _is_batch(value)}
    return tensors | ({"depth": tensors["depth"].squeeze(-1)} if "depth" in tensors else {})


def _is_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) > 0


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{name}") for name in names()]
