"""The CPU's int8 kernels against their plain twins, and what happens on CPUs whose own int8 product overflows."""

import os
import subprocess
import sys

import pytest
import torch

from vggt_quant.kernels import cpu_int8, operands, products, torch_reference
from vggt_quant.quantization import formats
from vggt_quant.quantization import grid as grids
from vggt_quant.quantization.checkpoint import memory_bytes
from vggt_quant.results import decibels

KINDS = ("int8", "int8_asymmetric")
SHAPES = [(1, 16, 16), (5, 17, 9), (3, 1, 1), (17, 130, 1000), (130, 1000, 17), (930, 192, 9), (2, 4096, 130)]
DTYPES = [torch.float32, torch.bfloat16]


def generator():
    return torch.Generator().manual_seed(0)


def activations(rows, columns, dtype=torch.float32):
    """Normal rows that are off their middle, with one of zeros, one of a huge value and one below every scale."""
    x = torch.randn(rows, columns, generator=generator()) * 3 + 1
    for row, value in zip(x, (0.0, 1e4, 1e-35), strict=False):
        row[0 if value else slice(None)] = value
    return x.to(dtype)


def integers(rows, columns, low=-128):
    return torch.randint(low, 128, (rows, columns), generator=generator(), dtype=torch.int8)


def weight_of(outputs, columns, kind):
    """Integers, scales, zero points and sums of a weight."""
    weight, scale = integers(outputs, columns), torch.rand(outputs, generator=generator()) * 0.01
    if kind == "int8":
        return weight, scale, None, None
    zero = torch.randint(-128, 128, (outputs,), generator=generator()).float()
    return weight, scale, zero, weight.sum(1, dtype=torch.int32).float()


def assert_same_rows(got, expected):
    for name in ("values_MK", "scale_M", "zero_M", "total_M"):
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None and other is None) or torch.equal(one, other), name


@pytest.fixture
def small_pieces(monkeypatch):
    """So few values a piece that small matrices are cut, too, the last piece being narrower."""
    monkeypatch.setattr(cpu_int8, "PIECE", 600)


@pytest.fixture
def threads():
    """Set the number of threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_quantized_bit_for_bit_as_the_twin_does(shape, kind, dtype):
    x = activations(*shape[:2], dtype)
    before = x.clone()
    assert_same_rows(cpu_int8.quantize_rows(x, kind), torch_reference.quantize_rows(x, kind))
    assert torch.equal(x, before)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_lie_in_memory_with_gaps_or_transposed(kind):
    x = activations(40, 90)
    for view in (x[::2, 5:70], x.t()):
        assert_same_rows(cpu_int8.quantize_rows(view, kind), torch_reference.quantize_rows(view.contiguous(), kind))


def test_a_row_whose_ends_both_lie_between_two_integers_does_not_wrap_around():
    """Of 256 integers it wants 257; the highest value must become 127 and not -128."""
    x = torch.tensor([[-153.5, 0.0, 101.5]])
    assert cpu_int8.quantize_rows(x, "int8_asymmetric").values_MK.tolist() == [[-128, 26, 127]]


@pytest.mark.parametrize("shape", [*SHAPES, (3, 5000, 4)])
def test_integer_products_are_exact(shape):
    rows, columns, outputs = shape
    for values, weight in (
        (integers(rows, columns, -127), integers(outputs, columns)),
        (torch.full((rows, columns), 127, dtype=torch.int8), torch.full((outputs, columns), -128, dtype=torch.int8)),
        (torch.full((rows, columns), -128, dtype=torch.int8), torch.full((outputs, columns), -128, dtype=torch.int8)),
        # Positive ones: float32 would round their sums, once they pass 2^24.
        (integers(rows, columns, 100), integers(outputs, columns, 100)),
    ):
        expected = values.long() @ weight.long().t()
        assert torch.equal(cpu_int8.integer_product(values, weight).long(), expected)
        assert torch.equal(cpu_int8.float32_product(values, weight).long(), expected)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_rows_are_those_of_the_twin(shape, kind, bias):
    rows, columns, outputs = shape
    operand = torch_reference.quantize_rows(activations(rows, columns), kind)
    weight, scale, zero, total = weight_of(outputs, columns, kind)
    bias = None if bias is None else torch.randn(outputs, generator=generator()).to(bias)
    got = products.multiply(operand, weight, scale, zero_N=zero, sum_N=total, bias_N=bias)
    expected = torch_reference.multiply_rows(operand, weight, scale, zero, bias)
    # The same float32 steps in another order: a few roundings of 2^-24 of the largest term, which zero points take out
    # of one row of the integer product, so the row's own terms are the measure.
    terms = (operand.values_MK.double().abs() + 128) @ (weight.double().abs() + 128).t()
    terms *= operand.scale_M[:, None] * scale
    assert got.dtype == torch.float32
    assert ((got - expected).abs() <= 1e-6 * terms + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_changes_no_bit(kind, threads):
    x, (weight, scale, zero, total) = activations(700, 512), weight_of(256, 512, kind)
    made = []
    for count in (1, 2, 3):
        threads(count)
        rows = cpu_int8.quantize_rows(x, kind)
        made.append(cpu_int8.multiply_rows(rows, weight, scale, zero_N=zero, sum_N=total))
        assert_same_rows(rows, torch_reference.quantize_rows(x, kind))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_give_no_rows(kind):
    weight, scale, zero, total = weight_of(9, 17, kind)
    rows = cpu_int8.quantize_rows(torch.zeros(0, 17), kind)
    assert cpu_int8.multiply_rows(rows, weight, scale, zero_N=zero, sum_N=total).shape == (0, 9)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_layer_answers_in_the_type_of_its_input_and_close_to_its_weights(dtype, zero_points):
    weight, bias = torch.randn(130, 192, generator=generator()), torch.randn(130, generator=generator())
    grid = grids.fit(weight, bits=8, zero_points=zero_points)
    layer = formats.layer("w8a8").from_integers(grids.to_integers(weight, grid), grid, bias)
    x = torch.randn(2, 7, 192, generator=generator()).to(dtype)
    out = layer(x)
    assert (out.dtype, out.shape) == (dtype, (2, 7, 130))
    # 8 bits on both sides of normal data leave 37 dB and more.
    assert decibels.sqnr_db(x.float() @ weight.t() + bias, out) > 37


def test_what_a_layer_derives_at_first_use_is_counted_as_memory():
    weight = torch.randn(64, 128, generator=generator())
    grid = grids.fit(weight, bits=8, zero_points=True)
    layer = formats.layer("w8a8").from_integers(grids.to_integers(weight, grid), grid, None)
    model = torch.nn.Sequential(layer)
    stored = memory_bytes(model)
    assert stored == layer.packed_bytes()
    model(torch.zeros(1, 128))
    assert memory_bytes(model) == stored + 3 * 4 * 64  # scales, zero points and sums in float32


def test_the_kernel_names_the_instructions_of_this_cpu():
    name = cpu_int8.kernel()
    assert formats.layer("w8a8").kernel(torch.device("cpu")) == name
    assert ("VNNI" in name or "AMX" in name or "float32" in name) or os.uname().machine != "x86_64"


def test_a_cpu_whose_own_product_overflows_gets_an_exact_one_and_says_so():
    """oneDNN, told to do without VNNI, is the older CPU; where it cannot be told (not x86), all is as usual."""
    code = (
        "import torch\n"
        "from vggt_quant.kernels import cpu_int8\n"
        "a, b = torch.full((5, 2050), 127, dtype=torch.int8), torch.full((9, 2050), -128, dtype=torch.int8)\n"
        "assert (cpu_int8.integer_product(a, b) == 127 * -128 * 2050).all()\n"
        "print(cpu_int8.kernel())\n"
    )
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "VNNI" in cpu_int8.kernel():
        assert done.stdout == "torch float32, because torch._int_mm overflows on this CPU\n"


def test_kernels_run_where_gradients_are_recorded():
    x = torch.randn(3, 16, generator=generator(), requires_grad=True)
    weight, scale, _, _ = weight_of(4, 16, "int8")
    rows = cpu_int8.quantize_rows(x, "int8")
    assert isinstance(rows, operands.Rows)
    assert not cpu_int8.multiply_rows(rows, weight, scale, bias_N=torch.nn.Parameter(torch.zeros(4))).requires_grad
