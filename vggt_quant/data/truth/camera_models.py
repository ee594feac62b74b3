"""Camera models of COLMAP's and ETH3D's text files: points in front of a camera to coordinates in its photo.

A model divides by depth, bends the result, and scales. Bending: a fisheye first shortens the radius r to atan(r);
r^2 k1 + r^4 k2 + ... stretches along the radius; p1 and p2 tilt (as OpenCV does); sx1 and sy1 shift by r^2 (a thin
prism).

Sources: COLMAP's camera model documentation; ETH3D's documentation of THIN_PRISM_FISHEYE (Schoeps et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Lens = Callable[[Tensor, Tensor, Sequence[float]], tuple[Tensor, Tensor]]


def project(points_cam: Tensor, model: str, params: Sequence[float]) -> Tensor:
    """Project points in a camera's frame.

    Args:
        points_cam: [..., 3], OpenCV axes.
        model: one of `MODELS`.
        params: as in cameras.txt: f or fx, fy, then cx, cy, then the coefficients.

    Returns:
        [..., 2] float64 (x, y) in pixels from the outer corner of the first pixel; NaN for points not in front.

    Raises:
        ValueError: an unknown model or a wrong number of parameters.
    """
    check_params(model, params)
    (fx, fy), (cx, cy) = pinhole_part(model, params)
    x, y, z = points_cam.double().unbind(-1)
    z = torch.where(z > 0, z, torch.nan)
    x, y = MODELS[model].bend(x / z, y / z, params[MODELS[model].num_focals + 2 :])
    return torch.stack((fx * x + cx, fy * y + cy), dim=-1)


def check_params(model: str, params: Sequence[float]) -> None:
    """Refuse what `project` cannot do.

    Raises:
        ValueError: an unknown model, a wrong number of parameters, or a focal length that is not positive.
    """
    if model not in MODELS:
        raise ValueError(f"The camera model {model!r} is not known; there are {', '.join(MODELS)}.")
    expected = MODELS[model].num_focals + 2 + MODELS[model].num_coefficients
    if len(params) != expected:
        raise ValueError(f"The camera model {model} has {expected} parameters, not {len(params)}.")
    if min(params[: MODELS[model].num_focals]) <= 0:
        raise ValueError(f"The focal length {min(params[: MODELS[model].num_focals])} is not positive.")


def pinhole_part(model: str, params: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths (fx, fy) and principal point (cx, cy)."""
    num_focals = MODELS[model].num_focals
    return (params[0], params[num_focals - 1]), (params[num_focals], params[num_focals + 1])


def _pinhole(x: Tensor, y: Tensor, k: Sequence[float]) -> tuple[Tensor, Tensor]:
    return x, y


def _radial(x: Tensor, y: Tensor, k: Sequence[float]) -> tuple[Tensor, Tensor]:
    stretch = 1 + _polynomial(x * x + y * y, k)
    return x * stretch, y * stretch


def _opencv(x: Tensor, y: Tensor, k: Sequence[float]) -> tuple[Tensor, Tensor]:
    """`k` ends with the tangential p1, p2."""
    *radial, p1, p2 = k
    squared = x * x + y * y
    bent_x, bent_y = _radial(x, y, radial)
    return (
        bent_x + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
        bent_y + 2 * p2 * x * y + p1 * (squared + 2 * y * y),
    )


def _opencv_fisheye(x: Tensor, y: Tensor, k: Sequence[float]) -> tuple[Tensor, Tensor]:
    return _radial(*_equidistant(x, y), k)


def _thin_prism_fisheye(x: Tensor, y: Tensor, k: Sequence[float]) -> tuple[Tensor, Tensor]:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = k
    x, y = _equidistant(x, y)
    squared = x * x + y * y
    bent_x, bent_y = _opencv(x, y, (k1, k2, k3, k4, p1, p2))
    return bent_x + sx1 * squared, bent_y + sy1 * squared


def _equidistant(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    # The smallest number keeps 0 / 0 away and gives the limit, 1.
    radius = torch.hypot(x, y).clamp_min(torch.finfo(torch.float64).tiny)
    shrink = torch.atan(radius) / radius
    return x * shrink, y * shrink


def _polynomial(squared: Tensor, k: Sequence[float]) -> Tensor:
    """k1 s + k2 s^2 + ..."""
    total = torch.zeros_like(squared)
    for coefficient in reversed(k):
        total = (total + coefficient) * squared
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """How the parameters of a model are laid out: focal lengths, principal point, coefficients of its lens."""

    num_focals: int
    num_coefficients: int
    bend: Lens


MODELS = {
    "SIMPLE_PINHOLE": Model(num_focals=1, num_coefficients=0, bend=_pinhole),
    "PINHOLE": Model(num_focals=2, num_coefficients=0, bend=_pinhole),
    "SIMPLE_RADIAL": Model(num_focals=1, num_coefficients=1, bend=_radial),
    "RADIAL": Model(num_focals=1, num_coefficients=2, bend=_radial),
    "OPENCV": Model(num_focals=2, num_coefficients=4, bend=_opencv),
    "OPENCV_FISHEYE": Model(num_focals=2, num_coefficients=4, bend=_opencv_fisheye),
    "THIN_PRISM_FISHEYE": Model(num_focals=2, num_coefficients=8, bend=_thin_prism_fisheye),
}
"""Every model that is known, by COLMAP's name."""
