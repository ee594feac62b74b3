"""Devices, shapes, inputs and comparisons that the tests of the kernels share.

Without a GPU the kernels are interpreted, over small shapes; with one they are compiled, over all.
"""

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
ROWS, WIDTHS = (1, 5, 17, 930, 4650), (9, 192, 1000, 1024, 4096)
FEW_ROWS, SMALL_WIDTHS = (1, 5, 17), (9, 192, 1000)
EIGHT_BITS = ("int8", "int8_asymmetric", "float8")
INTERPRETED = pytest.mark.skipif(HAS_GPU, reason="the kernels are compiled on this machine")
COMPILED = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")]


def on_both(interpreted, compiled):
    """Parameters ("cpu", *case) for the interpreter, and ("cuda", *case) marked `gpu`."""
    here = [pytest.param("cpu", *case, marks=INTERPRETED) for case in interpreted]
    return here + [pytest.param("cuda", *case, marks=COMPILED) for case in compiled]


KIND_CASES = on_both([(kind,) for kind in EIGHT_BITS], [(kind,) for kind in EIGHT_BITS])


def generator(*numbers):
    """Random numbers of their own for each shape, the same in every run."""
    return torch.Generator().manual_seed(hash(numbers) % 2**31)


def awkward_rows(m, k, device="cpu"):
    """bfloat16 [m, k]: normal, zero, huge and constant rows, one value a thousandfold, negative and positive rows."""
    rows = torch.randn(m, k, generator=generator(m, k))
    for row in range(m):
        match row % 7:
            case 1:
                rows[row] = 0
            case 2:
                rows[row] *= 1e4
            case 3:
                rows[row] = 0.7
            case 4:
                rows[row, k // 2] *= 1000
            case 5:
                rows[row] = -rows[row].abs() - 0.1
            case 6:
                rows[row] = rows[row].abs() + 0.1
    return rows.to(device, torch.bfloat16)


def worst_row_error(out, expected):
    """Largest |out - expected| / |expected| of all rows; NaN where one is, which no bound lets pass."""
    assert out.shape == expected.shape
    out, expected = out.double(), expected.double()
    return ((out - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-30)).max().item()


def worst_rounding(out, exact, slack):
    """Largest error of all values, where 1 is what rounding to bfloat16 costs at most, plus `slack` of the row's rms.

    bfloat16 keeps 8 bits, so that rounding to nearest moves a value by at most 2^-8 of itself.
    """
    assert out.shape == exact.shape and out.dtype == torch.bfloat16
    out, exact = out.double(), exact.double()
    allowed = 2**-8 * exact.abs() + slack * exact.square().mean(-1, keepdim=True).sqrt()
    return ((out - exact).abs() / allowed.clamp(min=1e-30)).max().item()


def seen(rows):
    """float32 [M, K]: what an 8-bit operand stands for."""
    values = rows.values_MK.float()
    return (values if rows.zero_M is None else values - rows.zero_M[:, None]) * rows.scale_M[:, None]
