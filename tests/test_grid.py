"""The integer grid: exactness, error floors, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vggt_quant.quantization import grid as grids
from vggt_quant.results import decibels


def normal(rows=1024, columns=4096):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def sqnr(weight, **settings):
    grid = grids.fit(weight, **settings)
    return decibels.sqnr_db(weight, grids.to_weights(grids.to_integers(weight, grid), grid))


@pytest.mark.parametrize(
    ("settings", "floor_db"),
    [
        ({"bits": 8}, 41.0),
        ({"bits": 8, "zero_points": True}, 41.0),
        ({"bits": 4, "group_size": 128}, 18.4),
        ({"bits": 4, "group_size": 64}, 19.1),
        ({"bits": 4, "group_size": 128, "zero_points": True}, 19.7),
        ({"bits": 4, "group_size": 64, "zero_points": True}, 20.5),
    ],
)
def test_normal_weights_keep_the_promised_sqnr(settings, floor_db):
    assert sqnr(normal(), **settings) >= floor_db


def test_zero_points_win_five_decibels_on_one_sided_weights():
    weight = normal().abs()
    assert sqnr(weight, bits=8, zero_points=True) >= sqnr(weight, bits=8) + 5


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    group_size=st.one_of(st.none(), st.integers(1, 80)),
    bits=st.sampled_from([2, 3, 4, 8]),
    zero_points=st.booleans(),
    exponent=st.integers(-20, 8),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_no_weight_is_off_by_more_than_a_step_whatever_the_shape(
    rows, columns, group_size, bits, zero_points, exponent, seed
):
    weight = normal(rows, columns + seed)[:, seed:] * 2.0**exponent
    grid = grids.fit(weight, bits=bits, group_size=group_size, zero_points=zero_points)
    back = grids.to_weights(grids.to_integers(weight, grid), grid)
    step = grid.scale_NG.float().abs().repeat_interleave(group_size or columns, dim=1)[:, :columns]
    # Half a step from rounding, one from the symmetric grid's missing positive end, 2^bits * 2^-9 from the bf16 scale.
    assert ((back - weight).abs() <= step * (1.5 + 2**bits / 512) + 1e-30).all()


def test_a_row_of_zeros_stays_zero():
    weight = torch.zeros(3, 10)
    for zero_points in (False, True):
        grid = grids.fit(weight, bits=4, group_size=4, zero_points=zero_points)
        assert torch.equal(grids.to_weights(grids.to_integers(weight, grid), grid), weight)


def test_a_narrow_last_group_has_a_scale_of_its_own():
    weight = torch.cat([torch.full((1, 8), 100.0), torch.full((1, 3), 0.01)], dim=1)
    grid = grids.fit(weight, bits=4, group_size=8)
    assert grid.scale_NG.shape == (1, 2)
    back = grids.to_weights(grids.to_integers(weight, grid), grid)
    torch.testing.assert_close(back, weight, rtol=2**-8, atol=0)  # the largest weight of a group loses only bf16 bits


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    weight = normal(2, 8)
    weight[1, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        grids.fit(weight, bits=8)


@pytest.mark.parametrize(
    ("weight", "settings", "words"),
    [
        (torch.zeros(3), {"bits": 8}, "matrix"),
        (torch.zeros(0, 3), {"bits": 8}, "non-empty"),
        (torch.zeros(2, 2), {"bits": 9}, "bits is 9"),
        (torch.zeros(2, 2), {"bits": 4, "group_size": 0}, "group_size is 0"),
    ],
)
def test_impossible_requests_name_the_value(weight, settings, words):
    with pytest.raises(ValueError, match=words):
        grids.fit(weight, **settings)
