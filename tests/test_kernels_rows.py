"""The producers: layer norm, GELU and nothing, leaving as bfloat16 or as 8-bit rows. Against their twins."""

import pytest
import torch
from kernel_cases import (
    EIGHT_BITS,
    FEW_ROWS,
    KIND_CASES,
    ROWS,
    SMALL_WIDTHS,
    WIDTHS,
    awkward_rows,
    generator,
    on_both,
    seen,
    worst_rounding,
    worst_row_error,
)
from torch.nn import functional

from vggt_quant.kernels import torch_reference

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.kernels import rows
from vggt_quant.kernels.gemm import Weight, gemm

KINDS = ("bfloat16", *EIGHT_BITS)
CASES = on_both(
    [(FEW_ROWS, k, kind) for k in SMALL_WIDTHS for kind in KINDS] + [((128,), 1024, "int8_asymmetric")],
    [(ROWS, k, kind) for k in WIDTHS for kind in KINDS],
)
NOISE = 1e-4
"""Of a row's size: float32 sums in another order (1e-7), magnified where the norm divides a constant row by 0.003."""
GELU_NOISE = 2e-6
"""The tail of the normal distribution is exact to 1e-7, of values up to five times as large as a row's rms."""


def check(got, exact, twin, kind, noise=NOISE):
    """Compare an operand with the float32 rows that it stands for, and with the twin's operand."""
    if kind == "bfloat16":
        assert worst_rounding(got, exact, noise) <= 1
        assert worst_rounding(got, twin, noise) <= 2
        return
    assert worst_row_error(got.scale_M[:, None], twin.scale_M[:, None]) <= NOISE
    # 127 steps, or 448 of the smallest, reach the row's largest value: its noise is up to 0.05 of a step.
    step, error = got.scale_M[:, None], (seen(got) - exact).abs()
    if kind == "int8":
        assert (error <= 0.55 * step).all()
    elif kind == "int8_asymmetric":
        # Half a step for the value, and half a step at the ends, where the zero point was rounded.
        assert (error <= 1.05 * step).all()
        assert torch.equal(got.total_M, (got.values_MK.float() - got.zero_M[:, None]).sum(1))
    else:
        # Three bits behind the leading one; below 2^-6 fixed steps of 2^-9.
        assert (error <= exact.abs() / 16 + (2**-10 + 0.05) * step).all()
    # A value halfway between two steps may fall to either side of it; that is rare, but for the small values of a
    # constant row in float8, whose steps are as small as the noise.
    moved = (seen(got) - seen(twin)).abs() > 0.5 * step * (2**-9 if kind == "float8" else 1)
    assert moved.sum() <= 2 + (0.05 if kind == "float8" else 0.002) * exact.numel()


def norm_weights(k, device):
    """Weight, bias and gamma [k]."""
    return (torch.randn(3, k, generator=generator(k)) / 2).to(device, torch.bfloat16)


@pytest.mark.parametrize(("device", "many", "k", "kind"), CASES)
def test_layer_norm_adds_what_is_pending_and_normalises(device, many, k, kind):
    weight, bias, gamma = norm_weights(k, device)
    for m in many:
        x, change = awkward_rows(m, k, device), awkward_rows(m, k, device).flip(0) / 2
        sums = x.float() + change.float() * gamma.float()
        exact = functional.layer_norm(sums, (k,), weight.float(), bias.float(), 1e-5)
        twin_x = x.clone()
        twin = torch_reference.layer_norm(twin_x, weight, bias, 1e-5, kind, change, gamma)
        got = rows.layer_norm(x, weight, bias, 1e-5, kind, rows.Update(change_MK=change, gamma_K=gamma))
        check(got, exact, twin, kind)
        # Product and sum are one operation on a GPU, and one bit may differ before both round to bfloat16.
        assert worst_rounding(x, sums, slack=1e-6) <= 1
        assert worst_rounding(x, twin_x, slack=1e-6) <= 2


@pytest.mark.parametrize(("device", "many", "k", "kind"), CASES)
def test_gelu_is_the_exact_one(device, many, k, kind):
    for m in many:
        x = awkward_rows(m, k, device)
        check(rows.gelu(x, kind), functional.gelu(x.float()), torch_reference.gelu(x, kind), kind, GELU_NOISE)


@pytest.mark.parametrize(("device", "many", "k", "kind"), CASES)
def test_rows_are_quantized_as_they_are(device, many, k, kind):
    for m in many:
        x = awkward_rows(m, k, device)
        got = rows.quantize(x, kind)
        if kind == "bfloat16":
            assert got is x
        else:
            check(got, x.float(), torch_reference.quantize_rows(x, kind), kind)


@pytest.mark.parametrize(("device", "kind"), on_both([(kind,) for kind in KINDS], [(kind,) for kind in KINDS]))
def test_layer_norm_reads_tokens_in_the_middle_of_frames_and_changes_no_others(device, kind):
    weight, bias, gamma = norm_weights(192, device)
    wide = awkward_rows(2 * 9, 200, device).view(2, 9, 200)
    before = wide.clone()
    inner = wide[:, 4:, :192]
    exact = functional.layer_norm(inner.float(), (192,), weight.float(), bias.float(), 1e-6).flatten(0, 1)
    twin = torch_reference.layer_norm(inner.flatten(0, 1), weight, bias, 1e-6, kind)
    check(rows.layer_norm(inner, weight, bias, 1e-6, kind), exact, twin, kind)
    assert torch.equal(wide, before)
    change = awkward_rows(10, 192, device)
    rows.layer_norm(inner, weight, bias, 1e-6, kind, rows.Update(change_MK=change, gamma_K=gamma))
    sums = before[:, 4:, :192].float() + change.view(2, 5, 192).float() * gamma.float()
    assert worst_rounding(wide[:, 4:, :192], sums, slack=1e-6) <= 1
    wide[:, 4:, :192] = before[:, 4:, :192]
    assert torch.equal(wide, before)


@pytest.mark.parametrize(("device", "kind"), KIND_CASES)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy's remark, when it interprets
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_spoils_its_row_and_no_other(device, kind, bad):
    x = awkward_rows(5, 192, device)
    x[2, 7] = bad
    w = torch_reference.quantize_rows(torch.randn(16, 192, generator=generator(16)).to(device), kind)
    weight = Weight(values_NK=w.values_MK, scale_N=w.scale_M, sum_N=w.values_MK.float().sum(1))
    out = gemm(rows.quantize(x, kind), weight).isfinite()
    assert not out[2].any()
    assert out[[0, 1, 3, 4]].all()
    assert not gemm(rows.layer_norm(x, *norm_weights(192, device)[:2], 1e-5, kind), weight)[2].isfinite().any()
    twin = torch_reference.multiply_rows(torch_reference.quantize_rows(x, kind), w.values_MK, w.scale_M)
    assert not twin[2].isfinite().any()
