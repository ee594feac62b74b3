"""Camera models against COLMAP's own, through pycolmap."""

from __future__ import annotations

import math

import numpy as np
import pycolmap
import pytest
import torch

from vggt_quant.data.truth.camera_models import MODELS, project

FISHEYE = [0.21047, 0.21102, -0.158023, 0.406856]
PARAMS = {
    "SIMPLE_PINHOLE": [340.0, 301.7, 199.8],
    "PINHOLE": [338.4, 341.3, 301.7, 199.8],
    "SIMPLE_RADIAL": [340.0, 301.7, 199.8, -0.12],
    "RADIAL": [340.0, 301.7, 199.8, -0.12, 0.03],
    "OPENCV": [338.4, 341.3, 301.7, 199.8, -0.11, 0.04, 0.002, -0.003],
    "OPENCV_FISHEYE": [338.4, 341.3, 301.7, 199.8, *FISHEYE],
    "THIN_PRISM_FISHEYE": [338.4, 341.3, 301.7, 199.8, *FISHEYE[:2], 0.001, -0.002, *FISHEYE[2:], 0.003, -0.004],
}


def points(count: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    tangents = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
    depth = 0.2 + 10 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return torch.cat((tangents * depth, depth), dim=-1)


def test_every_model_is_compared() -> None:
    assert set(PARAMS) == set(MODELS)


@pytest.mark.parametrize("model", PARAMS)
def test_points_fall_where_colmap_says(model: str) -> None:
    theirs = pycolmap.Camera(model=model, width=600, height=400, params=PARAMS[model]).img_from_cam(points().numpy())
    # Both are float64 with values below a thousand.
    np.testing.assert_allclose(project(points(), model, PARAMS[model]).numpy(), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", PARAMS)
def test_the_axis_meets_the_principal_point(model: str) -> None:
    num_focals = MODELS[model].num_focals
    center = PARAMS[model][num_focals : num_focals + 2]
    assert project(torch.tensor([0.0, 0.0, 2.0]), model, PARAMS[model]).tolist() == center


@pytest.mark.parametrize("model", PARAMS)
def test_a_point_that_is_not_in_front_has_no_pixel(model: str) -> None:
    behind = project(torch.tensor([[0.1, 0.2, -1.0], [0.1, 0.2, 0.0], [0.1, 0.2, math.nan]]), model, PARAMS[model])
    assert behind.isnan().all()


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ("FULL_OPENCV", [1.0] * 12, "'FULL_OPENCV' is not known; there are SIMPLE_PINHOLE"),
        ("PINHOLE", [1.0, 1.0, 0.0], "PINHOLE has 4 parameters, not 3"),
        ("PINHOLE", [1.0, -1.0, 0.0, 0.0], "-1.0 is not positive"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(model: str, params: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project(points(1), model, params)
