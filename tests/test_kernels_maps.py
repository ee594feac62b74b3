"""What stands between the convolutions of a dense head, against the model's own functions."""

import pytest
import torch
from kernel_cases import INTERPRETED, generator, on_both, worst_rounding, worst_row_error

from vggt_quant.kernels import torch_reference
from vggt_quant.model import dpt_head

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.kernels import maps

DTYPES = [torch.float32, torch.bfloat16]
SIZES = [((5, 7), (11, 13)), ((5, 7), (5, 7)), ((6, 9), (3, 2)), ((1, 1), (4, 3)), ((3, 1), (1, 5)), ((2, 3), (4, 6))]
RESIZES = on_both(
    [(2, 16, *sizes) for sizes in SIZES] + [(1, 1, (4, 3), (9, 9)), (1, 128, (2, 3), (9, 9))],
    [(2, 16, *sizes) for sizes in SIZES] + [(2, 128, (200, 296), (350, 518)), (3, 256, (13, 19), (25, 37))],
)


def close(out, exact):
    """Equal up to rounding: float32 sums in another order (1e-5); bfloat16 once, where 300 columns leave a place's
    fraction 2e-5 of noise, times the step between neighbours."""
    assert out.isfinite().all()
    if out.dtype == torch.bfloat16:
        assert worst_rounding(out, exact, slack=2e-4) <= 1
    else:
        assert worst_row_error(out.flatten(1), exact.flatten(1)) <= 1e-5


def random_map(*shape, device, dtype):
    return torch.randn(*shape, generator=generator(*shape)).to(device, dtype)


@pytest.mark.parametrize(("device", "frames", "channels", "small", "large"), RESIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_resize_is_bilinear_with_corners_on_corners(device, frames, channels, small, large, dtype):
    x = random_map(frames, *small, channels, device=device, dtype=dtype)
    exact = dpt_head.resize(x.float().permute(0, 3, 1, 2), large).permute(0, 2, 3, 1)
    close(maps.resize(x, large), exact)
    bias = random_map(channels, device=device, dtype=dtype)
    code_HC, code_WC = (random_map(side, channels, device=device, dtype=torch.float32) for side in large)
    close(maps.resize(x, large, bias, code_HC, code_WC), exact + bias.float() + code_HC[:, None] + code_WC)
    close(maps.resize(x, large, bias), exact + bias.float())


@pytest.mark.parametrize(("device", "shape"), on_both([((2, 5, 7, 16),), ((1, 9, 9, 48),)], [((3, 175, 259, 256),)]))
@pytest.mark.parametrize("dtype", DTYPES)
def test_finish_adds_what_is_given_and_cuts_at_zero_if_asked(device, shape, dtype):
    x = random_map(*shape, device=device, dtype=dtype)
    bias, first, second = random_map(shape[-1], device=device, dtype=dtype), x.flip(0) / 3, x.flip(1) * 2
    for parts in ({}, {"first": first}, {"first": first, "second": second}):
        for given in (bias, None):
            for relu in (False, True):
                exact, out = torch_reference.finish(x, given, relu=relu, **parts), x.clone()
                assert maps.finish(out, given, relu=relu, **parts) is out
                close(out, exact)


@pytest.mark.parametrize(
    ("device", "shape"), on_both([((2, 5, 7, 16),), ((1, 1, 1, 32),)], [((2, 35, 51, 32),), ((1, 350, 518, 32),)])
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("activation", "outputs"), [("exp", 2), ("inv_log", 4)])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_dense_output_ends_in_values_and_confidences(device, shape, dtype, activation, outputs, size):
    """Logits of all sizes: far below the smallest step of exp(y) - 1, and large ones of both signs."""
    channels = shape[-1]
    x = random_map(*shape, device=device, dtype=dtype)
    inner_bias = random_map(channels, device=device, dtype=dtype)
    weight = size * random_map(outputs, channels, device=device, dtype=torch.float32)
    bias = size * random_map(outputs, device=device, dtype=torch.float32)
    values = torch.full((*shape[:3], outputs - 1), float("nan"), device=device)
    confidence = torch.full(shape[:3], float("nan"), device=device)
    maps.dense_output(x, inner_bias, weight, bias, activation, values, confidence)
    hidden = torch_reference.finish(x, inner_bias, relu=True).double()
    logits = (hidden @ weight.double().t() + bias.double()).permute(0, 3, 1, 2)
    assert logits.abs().max() < 40
    exact = logits.movedim(1, -1)[..., :-1]
    exact = exact.exp() if activation == "exp" else exact.sign() * exact.abs().expm1()
    # A logit is exact to 1e-6 of its terms, and exp magnifies that; for inv_log small values keep their digits.
    noise = 1e-5 * (1 + exact.abs()) if activation == "exp" or size == 1.0 else 1e-4 * exact.abs() + 2e-8
    assert ((values - exact).abs() <= noise).all()
    _, twin_confidence = dpt_head.activate_dense(logits, activation)
    assert worst_row_error(confidence.flatten(1), twin_confidence.flatten(1)) <= 1e-5
    twin_values, _ = dpt_head.activate_dense(logits, activation)
    assert worst_row_error(values.flatten(1), twin_values.flatten(1)) <= 1e-5


@pytest.mark.parametrize("device", on_both([()], [()]))
def test_what_is_not_a_number_stays_so(device):
    """A maximum of NaN and zero is zero, which would hide it."""
    x = random_map(1, 3, 4, 16, device=device, dtype=torch.bfloat16)
    x[0, 1, 2, 5] = float("nan")
    bias = torch.zeros(16, device=device)
    finished = maps.finish(x.clone(), bias, relu=True).isfinite()
    assert not finished[0, 1, 2, 5] and finished.sum() == x.numel() - 1
    values, confidence = torch.zeros(1, 3, 4, 1, device=device), torch.zeros(1, 3, 4, device=device)
    ones, zeros = torch.ones(2, 16, device=device), torch.zeros(2, device=device)
    maps.dense_output(x, bias, ones, zeros, "exp", values, confidence)
    for output in (values[..., 0], confidence):
        assert not output[0, 1, 2].isfinite() and output.isfinite().sum() == 11
    assert not maps.resize(x, (6, 8))[..., 5].isfinite().all()


@INTERPRETED
def test_maps_whose_channels_are_not_innermost_are_refused():
    """They would be read as if they were."""
    x = random_map(1, 4, 5, 32, device="cpu", dtype=torch.bfloat16)
    other, ones = x.permute(0, 2, 1, 3), torch.ones(2, 32)
    values, confidence = torch.zeros(1, 5, 4, 1), torch.zeros(1, 5, 4)
    with pytest.raises(AssertionError):
        maps.finish(x.permute(0, 2, 1, 3).contiguous(), None, relu=False, first=other)
    with pytest.raises(AssertionError):
        maps.dense_output(other, ones[0], ones, ones[:, 0].contiguous(), "exp", values, confidence)
