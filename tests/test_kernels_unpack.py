"""Packed weights made ready for a product of another type, against their twins."""

import pytest
import torch
from kernel_cases import SMALL_WIDTHS, WIDTHS, generator, on_both, worst_row_error

from vggt_quant.kernels import torch_reference

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.kernels.unpack import unpack_int4, unpack_int8

CASES = on_both([(5, k) for k in SMALL_WIDTHS], [(n, k) for n in (5, 1000) for k in WIDTHS])


def packed_int4(n, k, group, *, zero_points, device):
    """Random bytes, scales of both signs and zero points, as a format stores them."""
    random = generator(n, k, group)
    groups = -(-k // group)
    packed_NB = torch.randint(0, 256, (n, -(-k // 2)), generator=random).to(device, torch.uint8)
    scale_NG = torch.randn(n, groups, generator=random).to(device, torch.bfloat16)
    scale_NG[-1] = 0
    zero_NG = torch.randint(0, 16, (n, groups), generator=random).to(device, torch.uint8) if zero_points else None
    return packed_NB, scale_NG, zero_NG, k, group


@pytest.mark.parametrize(("device", "n", "k"), CASES)
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("group", [5, 48, 128, 2050, 10_001])
def test_nibbles_become_bfloat16(device, n, k, group, zero_points):
    stored = packed_int4(n, k, group, zero_points=zero_points, device=device)
    # A whole number of at most 4 bits times a scale of 8: float32 holds it, so only the last rounding is left.
    exact = torch_reference.dequantize_int4(*stored, torch.float32)
    assert torch.equal(unpack_int4(*stored, "bfloat16"), exact.bfloat16())


@pytest.mark.parametrize(("device", "n", "k"), CASES)
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("kind", ["int8", "float8"])
@pytest.mark.parametrize("group", [5, 48, 128, 10_001])
def test_nibbles_become_8_bits_under_one_scale_per_row(device, n, k, group, kind, zero_points):
    stored = packed_int4(n, k, group, zero_points=zero_points, device=device)
    twin_NK, scale_N = torch_reference.int4_to_rows(*stored, kind)
    got = unpack_int4(*stored, kind, scale_N)
    assert got.dtype == twin_NK.dtype
    assert torch.equal(got.float(), twin_NK.float())
    error = (got.float() * scale_N[:, None] - torch_reference.dequantize_int4(*stored, torch.float32)).abs()
    exact = torch_reference.dequantize_int4(*stored, torch.float32).abs()
    half_step = 0.501 * scale_N[:, None] if kind == "int8" else exact / 15.9 + 2**-10 * scale_N[:, None]
    assert (error <= half_step).all()


@pytest.mark.parametrize(("device", "n", "k"), CASES)
@pytest.mark.parametrize("zero_points", [False, True])
def test_bytes_become_bfloat16(device, n, k, zero_points):
    random = generator(n, k)
    weight_NK = torch.randint(-128, 128, (n, k), generator=random).to(device, torch.int8)
    scale_N1 = torch.randn(n, 1, generator=random).to(device, torch.bfloat16)
    zero_N1 = torch.randint(-128, 128, (n, 1), generator=random).to(device, torch.int16) if zero_points else None
    exact = torch_reference.dequantize_int8(weight_NK, scale_N1, zero_N1, torch.float32)
    assert torch.equal(unpack_int8(weight_NK, scale_N1, zero_N1), exact.bfloat16())


def test_the_row_scale_lets_no_weight_leave_the_range():
    """Even the farthest nibble of the group with the largest scale fits, and fills the range."""
    for zero_points in (False, True):
        _, scale_NG, zero_NG, k, group = packed_int4(7, 256, 128, zero_points=zero_points, device="cpu")
        for nibble in (0, 255):
            packed_NB = torch.full((7, 128), nibble, dtype=torch.uint8)
            stored = packed_NB, scale_NG, zero_NG, k, group
            for kind, largest in (("int8", 127), ("float8", 448)):
                values_NK, scale_N = torch_reference.int4_to_rows(*stored, kind)
                weight_NK = torch_reference.dequantize_int4(*stored, torch.float32)
                assert values_NK.float().abs().max() <= largest
                assert worst_row_error(values_NK.float() * scale_N[:, None], weight_NK) <= 0.07
    bound = torch_reference.int4_row_scale(scale_NG, None, "int8")
    assert torch.allclose(bound * 127, scale_NG.float().abs().amax(1) * 8, atol=1e-6)
