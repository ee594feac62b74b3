"""Point clouds against the truth: cases worked out by hand, COLMAP's alignment and all distances, degenerate clouds."""

import math

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from torch import Tensor

from vggt_quant.evaluation.metrics.clouds import cloud_accuracy, point_error

EXACT = 1e-9  # float64 rounding, an alignment included, on coordinates of about one
ORIGIN = torch.zeros(3)
HALF_TURN_OF_X = torch.tensor([1.0, -1, -1])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Products this small gain nothing from threads, and wait for them for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bumpy(seed: int, shape=(2, 9, 11)) -> Tensor:
    """Smooth surfaces [S, H, W, 3] with normals of many directions."""
    generator = torch.Generator().manual_seed(seed)
    views, height, width = shape
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    a, b, c = 1 + torch.rand(3, views, 1, 1, generator=generator, dtype=torch.float64)
    depth = 2 + 0.4 * torch.sin(2 * a * u + b) * torch.cos(2 * b * v + c)
    return torch.stack((u * depth, v * depth, depth + torch.arange(views)[:, None, None]), dim=-1)


def everywhere(points: Tensor) -> Tensor:
    return torch.ones(points.shape[:-1], dtype=torch.bool)


def disturbed(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A prediction with a stretch and so much noise that normals turn over, the truth, and a mask with holes."""
    generator = torch.Generator().manual_seed(seed)
    true = bumpy(seed)
    noise = 0.4 * torch.randn(true.shape, generator=generator, dtype=torch.float64)
    return (true + noise) * torch.tensor([1.0, 1, 1.3]), true, torch.rand(true.shape[:-1], generator=generator) > 0.1


def moved(points: Tensor, seed: int, scale: float, shift: list[float]) -> Tensor:
    rotation = torch.from_numpy(Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
    return scale * points @ rotation.mT + torch.tensor(shift, dtype=torch.float64)


similarities = st.tuples(
    st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.lists(st.floats(-10, 10), min_size=3, max_size=3)
)


@settings(deadline=None)  # the machine may be busy
@given(similarities)
def test_a_scaled_turned_and_shifted_copy_is_perfect(similarity):
    true = bumpy(0)
    predicted = moved(true, *similarity)
    assert point_error(predicted, true, everywhere(true), ORIGIN) < EXACT
    figures = cloud_accuracy(predicted, true, everywhere(true))
    assert figures.pop("cloud_normal_consistency_mean") == pytest.approx(1, abs=EXACT)
    assert len(figures) == 5 and max(figures.values()) < EXACT


@settings(deadline=None)  # the machine may be busy
@given(similarities)
def test_the_frame_and_unit_of_a_prediction_do_not_matter(similarity):
    predicted, true, valid = disturbed(1)
    elsewhere = moved(predicted, *similarity)
    expected = point_error(predicted, true, valid, ORIGIN)
    assert point_error(elsewhere, true, valid, ORIGIN) == pytest.approx(expected, abs=EXACT)
    figures = cloud_accuracy(predicted, true, valid)
    assert figures["cloud_normal_consistency_mean"] < 0.99 and figures["cloud_overall_mean"] > 0.01
    assert cloud_accuracy(elsewhere, true, valid) == pytest.approx(figures, abs=EXACT)


def test_distances_have_the_unit_of_the_truth_and_point_errors_have_none():
    predicted, true, valid = disturbed(2)
    near, far = cloud_accuracy(predicted, true, valid), cloud_accuracy(predicted, 8 * true, valid)
    assert far["cloud_accuracy_mean"] == pytest.approx(8 * near["cloud_accuracy_mean"])
    assert far["cloud_normal_consistency_mean"] == pytest.approx(near["cloud_normal_consistency_mean"])
    assert point_error(predicted, 8 * true, valid, ORIGIN) == pytest.approx(point_error(predicted, true, valid, ORIGIN))


def octahedron(height: float) -> Tensor:
    """Six pixels, [1, 1, 6, 3]."""
    corners = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, height), (0, 0, -height)]
    return torch.tensor(corners, dtype=torch.float64)[None, None]


def test_point_error_of_a_hand_worked_case():
    # Nothing turns or shifts. Scale: sum of s.t over sum of s.s = (2 + 2 + 4) / (2 + 2 + 8) = 2/3. Corners at 2/3 and
    # tips at 4/3 are all 1/3 off, and the size is 1.
    predicted, true = octahedron(2), octahedron(1)
    assert point_error(predicted, true, everywhere(true), ORIGIN) == pytest.approx(1 / 3, abs=EXACT)
    # From (0, 0, 1) the corners are sqrt(2) away, the tips 0 and 2: the size is (4 sqrt(2) + 2) / 6.
    size = (4 * math.sqrt(2) + 2) / 6
    origin = torch.tensor([0.0, 0, 1])
    assert point_error(predicted, true, everywhere(true), origin) == pytest.approx(1 / 3 / size, abs=EXACT)


def test_the_clouds_of_a_hand_worked_case():
    predicted, true = octahedron(2), octahedron(1)
    figures = cloud_accuracy(predicted, true, everywhere(true))
    third = pytest.approx(1 / 3, abs=EXACT)  # each corner's nearest neighbour is its own counterpart
    assert figures == {
        **dict.fromkeys(("cloud_accuracy_mean", "cloud_accuracy_median", "cloud_overall_mean"), third),
        **dict.fromkeys(("cloud_completeness_mean", "cloud_completeness_median"), third),
        "cloud_normal_consistency_mean": None,  # a single row of pixels has no surface
    }


def test_a_mirrored_cloud_is_wrong():
    true = bumpy(3)
    mirrored = true * torch.tensor([-1.0, 1, 1])
    assert point_error(mirrored, true, everywhere(true), ORIGIN) > 0.1
    turned = true * HALF_TURN_OF_X
    assert point_error(turned, true, everywhere(true), ORIGIN) < EXACT


def normals_of_pixels(points: np.ndarray, valid: np.ndarray) -> dict[tuple[int, int, int], np.ndarray]:
    """Pixel -> unit normal, one pixel at a time."""
    views, height, width = valid.shape
    normals = {}
    for s, v, u in np.ndindex(views, height, width):
        if not (0 < v < height - 1 and 0 < u < width - 1):
            continue
        if valid[s, v - 1 : v + 2, u].all() and valid[s, v, u - 1 : u + 2].all():
            normal = np.cross(points[s, v, u + 1] - points[s, v, u - 1], points[s, v + 1, u] - points[s, v - 1, u])
            normals[s, v, u] = normal / np.linalg.norm(normal)
    return normals


def colmap_figures(predicted: Tensor, true: Tensor, valid: Tensor) -> tuple[float, dict[str, float]]:
    """Alignment by COLMAP, neighbours from the table of all distances, normals pixel by pixel."""
    predicted, true, valid = predicted.numpy(), true.numpy(), valid.numpy()
    matrix = pycolmap.estimate_sim3d(predicted[valid], true[valid]).matrix()
    aligned = predicted @ matrix[:, :3].T + matrix[:, 3]
    error = np.linalg.norm(aligned - true, axis=-1)[valid].mean() / np.linalg.norm(true, axis=-1)[valid].mean()
    distances = cdist(aligned[valid], true[valid])
    pixels = [tuple(pixel) for pixel in np.argwhere(valid)]
    found, expected = normals_of_pixels(aligned, valid), normals_of_pixels(true, valid)
    cosines = []
    for table, here, there in ((distances, found, expected), (distances.T, expected, found)):
        pairs = [(pixel, pixels[k]) for pixel, k in zip(pixels, table.argmin(axis=1), strict=True)]
        cosines.append(np.mean([abs(here[a] @ there[b]) for a, b in pairs if a in here and b in there]))
    accuracy, completeness = distances.min(axis=1), distances.min(axis=0)
    return error, {
        "cloud_accuracy_mean": accuracy.mean(),
        "cloud_accuracy_median": np.median(accuracy),
        "cloud_completeness_mean": completeness.mean(),
        "cloud_completeness_median": np.median(completeness),
        "cloud_overall_mean": (accuracy.mean() + completeness.mean()) / 2,
        "cloud_normal_consistency_mean": np.mean(cosines),
    }


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_agree_with_colmap_and_the_table_of_all_distances(seed):
    predicted, true, valid = disturbed(seed)
    error, expected = colmap_figures(predicted, true, valid)
    figures = cloud_accuracy(predicted, true, valid)
    assert point_error(predicted, true, valid, ORIGIN) == pytest.approx(error, abs=EXACT)
    assert figures == pytest.approx(expected, abs=EXACT)
    assert {type(value) for value in figures.values()} == {float}
    assert abs(figures["cloud_accuracy_mean"] - figures["cloud_completeness_mean"]) > 1e-4, "the ways are told apart"


def test_a_sample_says_the_same_as_the_whole_and_can_be_drawn_again():
    predicted, true, valid = disturbed(4)
    whole = cloud_accuracy(predicted, true, valid)
    sample = cloud_accuracy(predicted, true, valid, max_points=100)
    assert sample == cloud_accuracy(predicted, true, valid, max_points=100)
    assert sample != cloud_accuracy(predicted, true, valid, max_points=100, seed=1) != whole
    # 100 of 180 distances whose spread is a half of their mean: their mean is good to 5 %, doubled twice.
    assert sample["cloud_overall_mean"] == pytest.approx(whole["cloud_overall_mean"], rel=0.2)


def test_sampling_leaves_a_perfect_prediction_perfect():
    true = bumpy(5)
    figures = cloud_accuracy(true, true, everywhere(true), max_points=10)
    assert figures["cloud_accuracy_mean"] < EXACT and figures["cloud_completeness_mean"] < EXACT


def test_a_view_that_collapsed_into_one_point_has_no_consistent_normal():
    true = bumpy(6)
    predicted = true.clone()
    predicted[1] = predicted[1].mean((0, 1))
    figures = cloud_accuracy(predicted, true, everywhere(true))
    assert figures["cloud_normal_consistency_mean"] < 0.75, "half of the predicted points have no surface"
    assert figures["cloud_completeness_mean"] > 2 * figures["cloud_accuracy_mean"], "what is missing is incompleteness"


def without(valid: Tensor, count: int) -> Tensor:
    """Only the first `count` pixels stay valid."""
    return (torch.arange(valid.numel()) < count).reshape(valid.shape)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_valid_pixels_have_no_figures(count):
    true = bumpy(0)
    valid = without(everywhere(true), count)
    assert point_error(true, true, valid, ORIGIN) is None
    assert set(cloud_accuracy(true, true, valid).values()) == {None}
    assert len(cloud_accuracy(true, true, valid)) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_valid_point_that_is_not_finite_spoils_the_scene(bad):
    true = bumpy(0)
    predicted = true.clone()
    predicted[0, 4, 5, 1] = bad
    assert point_error(predicted, true, everywhere(true), ORIGIN) is None
    assert set(cloud_accuracy(predicted, true, everywhere(true)).values()) == {None}


def test_what_is_not_valid_may_hold_anything():
    predicted, true, valid = disturbed(0)
    expected = point_error(predicted, true, valid, ORIGIN), cloud_accuracy(predicted, true, valid)
    predicted[~valid], true[~valid] = math.nan, math.inf
    assert (point_error(predicted, true, valid, ORIGIN), cloud_accuracy(predicted, true, valid)) == expected


@pytest.mark.parametrize("collapse", [(0, 0, 0), (1, 0, 0)], ids=["into a point", "onto a line"])
def test_a_cloud_that_determines_no_alignment_has_no_figures(collapse):
    true = bumpy(0)
    predicted = true * torch.tensor(collapse)
    for pair in ((predicted, true), (true, predicted)):
        assert point_error(*pair, everywhere(true), ORIGIN) is None
        assert set(cloud_accuracy(*pair, everywhere(true)).values()) == {None}


def test_any_float_dtype_is_taken():
    predicted, true, valid = disturbed(0)
    expected = cloud_accuracy(predicted, true, valid)
    figures = cloud_accuracy(predicted.float().requires_grad_(), true.float(), valid)
    assert figures == pytest.approx(expected, rel=1e-3)  # float32 may swap two nearly equal neighbours
    # A bfloat16 coordinate of 3 is good to 0.008, against a scene of size 2.6.
    rough = point_error(predicted.bfloat16(), true.float(), valid, ORIGIN.half())
    assert rough == pytest.approx(point_error(predicted, true, valid, ORIGIN), abs=5e-3)


@pytest.mark.parametrize("measure", [cloud_accuracy, lambda *maps: point_error(*maps, ORIGIN)])
def test_what_is_no_truth_is_refused_with_the_reason(measure):
    true = bumpy(0)
    with pytest.raises(ValueError, match=r"shapes \[\[2, 9, 11, 3\], \[2, 9, 11, 3\], \[2, 9, 11, 1\]\]"):
        measure(true, true, everywhere(true)[..., None])
    broken = true.clone()
    broken[0, :2, 0] = math.nan
    with pytest.raises(ValueError, match="2 true points are valid but not finite"):
        measure(true, broken, everywhere(true))


def test_an_origin_that_is_no_place_is_refused():
    true = bumpy(0)
    with pytest.raises(ValueError, match=r"origin is \[nan, nan, nan\]; give the first camera's centre"):
        point_error(true, true, everywhere(true), ORIGIN * math.nan)
