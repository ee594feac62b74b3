"""Products of 8-bit rows: the kernel, and the choice between it and cuBLAS, against the twin and against integers."""

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
)

from vggt_quant.kernels import products, torch_reference
from vggt_quant.kernels.operands import Rows
from vggt_quant.results.decibels import sqnr_db

pytest.importorskip("triton", reason="needs Triton")

from vggt_quant.kernels.gemm import Tile, Weight, choose_tile, gemm

# The interpreter is slow: every pair of M, N and K, but not every three.
SQUARE = [((1, 1000, 9), (5, 9, 9), (17, 192, 9)), ((1, 9, 192), (5, 192, 192), (17, 1000, 192))]
SQUARE += [((1, 192, 1000), (5, 1000, 1000), (17, 9, 1000))]
CASES = on_both(
    [(shapes, kind) for shapes in SQUARE for kind in EIGHT_BITS] + [(((128, 1024, 1024),), "int8_asymmetric")],
    [([(m, n, k) for m in ROWS for n in WIDTHS], kind) for k in WIDTHS for kind in EIGHT_BITS],
)


def noise(kind, k, device):
    """What a sum of k products may lose, of a row's rms."""
    if kind == "float8" and device == "cuda":
        # Hopper's matrix units add 32 products at a time to a sum, with 13 bits behind the largest one's point.
        return 4 * 2**-13 * -(-k // 32)  # half of it was 1.5 % too little on an H100
    return 1e-5  # float32 sums, or zero points times sums that take back large numbers


def weight_of(n, k, kind, device, *, bias=True):
    """A normal weight with one row of zeros, as rows of that kind, and what the kernel wants of it."""
    w_NK = torch.randn(n, k, generator=generator(n, k)).to(device)
    w_NK[n // 2] = 0
    w = torch_reference.quantize_rows(w_NK, kind)
    bias_N = torch.randn(n, generator=generator(n)).to(device, torch.bfloat16) if bias else None
    sum_N = w.values_MK.float().sum(1)
    return Weight(values_NK=w.values_MK, scale_N=w.scale_M, zero_N=w.zero_M, sum_N=sum_N, bias_N=bias_N)


def twin_of(rows, weight):
    return torch_reference.multiply_rows(rows, weight.values_NK, weight.scale_N, weight.zero_N, weight.bias_N)


@pytest.mark.parametrize(("device", "shapes", "kind"), CASES)
def test_the_kernel_multiplies_as_its_twin(device, shapes, kind):
    for m, n, k in shapes:
        rows = torch_reference.quantize_rows(awkward_rows(m, k, device), kind)
        weight = weight_of(n, k, kind, device, bias=n != 192)
        assert worst_rounding(gemm(rows, weight), twin_of(rows, weight), noise(kind, k, device)) <= 1, (m, n, k)


@pytest.mark.parametrize(("device", "kind"), KIND_CASES)
def test_the_twin_multiplies_what_the_operands_stand_for(device, kind):
    x, w = awkward_rows(17, 192, device), torch.randn(33, 192, generator=generator(33)).to(device)
    rows, weight = torch_reference.quantize_rows(x, kind), torch_reference.quantize_rows(w, kind)
    out = torch_reference.multiply_rows(rows, weight.values_MK, weight.scale_M, weight.zero_M)
    exact = seen(rows).double() @ seen(weight).double().t()
    assert (out - exact).abs().max() <= 1e-5 * exact.abs().max()  # float32
    sizes = exact.norm(dim=1, keepdim=True)
    assert ((out - exact).abs() <= 1e-5 * sizes + 1e-30).all()


@pytest.mark.parametrize(("device", "k"), on_both([(k,) for k in SMALL_WIDTHS], [(k,) for k in WIDTHS]))
@pytest.mark.parametrize("zero_points", [False, True])
def test_integer_products_are_exact_before_scaling(device, k, zero_points):
    """Two halves of a row take each other back but for one product, which bfloat16 holds exactly."""
    half = k // 2
    p = torch.randint(-128, 128, (17, half), generator=generator(k, 1))
    q = torch.randint(-127, 128, (40, half), generator=generator(k, 2))
    rest = torch.zeros(40, half, dtype=torch.int64)
    rest[torch.arange(40), torch.randint(0, half, (40,), generator=generator(k, 3))] = 1
    padding = k - 2 * half
    a = torch.nn.functional.pad(torch.cat((p, p), 1), (0, padding))
    b = torch.nn.functional.pad(torch.cat((q, rest - q), 1), (0, padding))
    zeros = [torch.zeros(17), torch.zeros(40)]
    if zero_points:
        # What the values stand for stays the same: both operands move with their zero points.
        zeros = [torch.randint(-100, 100, (len(x),), generator=generator(k, 4)) for x in (a, b)]
        a, b = (torch.randint(-14, 14, x.shape, generator=generator(*x.shape)) for x in (a, b))
        b[:, 1:] = 0
    exact = (a @ b.t()).float()
    stored = [(x + zero[:, None].long()).to(device, torch.int8) for x, zero in zip((a, b), zeros, strict=True)]
    ones = [torch.ones(len(x), device=device) for x in stored]
    zero_M, zero_N = (zero.to(device, torch.float32) if zero_points else None for zero in zeros)
    total_M = a.sum(1).to(device, torch.float32) if zero_points else None
    rows = Rows(values_MK=stored[0], scale_M=ones[0], zero_M=zero_M, total_M=total_M)
    sum_N = stored[1].sum(1, dtype=torch.int32).float()
    out = gemm(rows, Weight(values_NK=stored[1], scale_N=ones[1], zero_N=zero_N, sum_N=sum_N))
    assert exact.abs().max() <= 256
    assert torch.equal(out.float().cpu(), exact)


@pytest.mark.parametrize("device", on_both([()], [()]))
def test_zero_points_of_one_side_alone_are_taken_back(device):
    x, w = awkward_rows(17, 192, device), torch.randn(33, 192, generator=generator(33)).to(device)
    asymmetric, symmetric = (torch_reference.quantize_rows(w, kind) for kind in ("int8_asymmetric", "int8"))
    for rows_kind, weight in (("int8_asymmetric", symmetric), ("int8", asymmetric)):
        rows = torch_reference.quantize_rows(x, rows_kind)
        total_M = rows.values_MK.float().sum(1) if rows.total_M is None else rows.total_M
        rows = Rows(values_MK=rows.values_MK, scale_M=rows.scale_M, zero_M=rows.zero_M, total_M=total_M)
        made = Weight(
            values_NK=weight.values_MK, scale_N=weight.scale_M, zero_N=weight.zero_M,
            sum_N=weight.values_MK.float().sum(1),
        )  # fmt: skip
        assert worst_rounding(gemm(rows, made), twin_of(rows, made), 1e-5) <= 1
        assert worst_rounding(gemm(rows, made), seen(rows) @ seen(weight).t(), 1e-4) <= 1
    with pytest.raises(AssertionError, match="sums of the weight"):
        gemm(torch_reference.quantize_rows(x, "int8_asymmetric"), Weight(values_NK=w.to(torch.int8), scale_N=w[:, 0]))
    with pytest.raises(AssertionError, match="totals of the activations"):
        gemm(torch_reference.quantize_rows(x, "int8"), made)


TILES = [
    Tile(m=32, n=64, k=64, stages=2, warps=4),
    Tile(m=64, n=128, k=32, stages=2, warps=4, halves=True),
    Tile(m=128, n=64, k=128, stages=2, warps=8, halves=True),
]


@pytest.mark.parametrize(("device", "kind"), KIND_CASES)
@pytest.mark.parametrize("tile", TILES)
def test_every_cut_of_the_work_gives_the_same(device, kind, tile):
    # 13 x 3 tiles of the smallest size: a band of 8 rows and one of 5, and more than one tile for each program.
    rows = torch_reference.quantize_rows(awkward_rows(386, 150, device), kind)
    weight = weight_of(130, 150, kind, device)
    assert worst_rounding(gemm(rows, weight, tile), twin_of(rows, weight), noise(kind, 150, device)) <= 1


def test_the_chosen_tile_is_the_largest_that_leaves_no_multiprocessor_idle():
    for m in ROWS:
        for n in WIDTHS:
            for k in WIDTHS:
                tile = choose_tile(m, n, k, 132, zero_points=False)
                tiles = -(-m // tile.m) * -(-n // tile.n)
                assert tiles >= 132 or tile.m == 64, (m, n, k, tile)
                assert tile.k <= max(k, 64)
    assert choose_tile(93_000, 4096, 1024, 132, zero_points=False).n == 256
    assert choose_tile(93_000, 4096, 1024, 132, zero_points=True).n == 128


@pytest.mark.parametrize(("device", "kind"), KIND_CASES)
def test_products_take_every_shape(device, kind):
    for m in ROWS if device == "cuda" else FEW_ROWS:
        for n, k in ((9, 192), (192, 9), (1024, 192), (192, 1024), (1000, 1000)):
            rows, weight = (
                torch_reference.quantize_rows(awkward_rows(m, k, device), kind),
                weight_of(n, k, kind, device),
            )
            out = products.multiply(
                rows, weight.values_NK, weight.scale_N, zero_N=weight.zero_N, sum_N=weight.sum_N, bias_N=weight.bias_N
            )
            assert out.shape == (m, n)
            assert out.dtype == (torch.bfloat16 if device == "cuda" else torch.float32)
            assert worst_rounding(out.bfloat16(), twin_of(rows, weight), noise(kind, k, device)) <= 1, (m, n, k)


@pytest.mark.parametrize(
    ("device", "kind", "least_db"), on_both(*[[("int8", 37), ("int8_asymmetric", 37), ("float8", 28)]] * 2)
)
def test_products_of_normal_data_keep_their_sqnr(device, kind, least_db):
    from vggt_quant.kernels import rows

    x = torch.randn(128, 1024, generator=generator(1)).to(device, torch.bfloat16)
    w = torch.randn(256, 1024, generator=generator(2)).to(device)
    weight = torch_reference.quantize_rows(w, kind)
    made = Weight(
        values_NK=weight.values_MK, scale_N=weight.scale_M, zero_N=weight.zero_M, sum_N=weight.values_MK.float().sum(1)
    )
    exact = x.double() @ w.double().t()
    assert sqnr_db(exact, gemm(rows.quantize(x, kind), made)) >= least_db
