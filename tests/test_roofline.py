"""The roofline: what a pass has to do is counted right, in the right arithmetic, and held against the right GPU."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from small_run import photos
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vggt_quant.benchmark.operations import Work, products
from vggt_quant.benchmark.sweep import measure_sweep
from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import Engine, ready
from vggt_quant.model import NAMED, VGGT
from vggt_quant.quantization import formats
from vggt_quant.quantization.checkpoint import memory_bytes
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.quantization.quantize import quantize_model
from vggt_quant.report.roofline import GPUS, least_ms
from vggt_quant.results.schema import read
from vggt_quant.results.speed_schema import SweepResult
from vggt_quant.variants import RunSettings, load_variants

H100 = "NVIDIA H100 80GB HBM3"
MEASURED = Path(__file__).parent.parent / "docs" / "measurements" / "2026-11-25-h100-fast-engine" / "sweep_bf16.json"
NANO, SIZE = NAMED["nano"], (56, 84)
TOKENS = 4 * 6 + 5
HEADS = ("camera_head", "depth_head", "point_head")

# VGGT-1B on images of 350x518, counted once by another program over upstream's modules, in TFLOP: total, Linears of
# the transformer, attention of the image, frame and global blocks, depth, points, cameras.
KNOWN = {
    1: (2.347, 1.685, 0.085, 0.085, 0.085, 0.202, 0.202, 0.0017),
    10: (31.118, 16.851, 0.850, 0.850, 8.502, 2.018, 2.018, 0.0173),
    100: (1076.391, 168.510, 8.502, 8.502, 850.231, 20.178, 20.181, 0.1741),
}


@pytest.fixture(scope="module")
def large():
    return products(NAMED["vggt-1b"], (350, 518))[0]


def total(found, num_images, prefix="", kinds=("linear", "convolution", "scores", "values")):
    return sum(one.at(num_images) for one in found if one.layer.startswith(prefix) and one.kind in kinds)


@pytest.mark.parametrize("num_images", KNOWN)
def test_vggt_1b_needs_the_operations_that_are_known_of_it(large, num_images):
    attention = [
        total(large, num_images, f"aggregator.{blocks}", ("scores", "values"))
        for blocks in ("patch_embed", "frame_blocks", "global_blocks")
    ]
    heads = [total(large, num_images, head) for head in ("depth_head", "point_head", "camera_head")]
    found = [total(large, num_images), total(large, num_images, "aggregator.", ("linear",)), *attention, *heads]
    # The facts have three decimals, those of the camera head four.
    assert [count / 1e12 for count in found] == pytest.approx(KNOWN[num_images], rel=1e-3, abs=5e-4)


@pytest.mark.parametrize("num_images", [1, 3, 9])
def test_every_layer_counts_as_torch_counts_it_at_any_number_of_images(num_images):
    """Nine images are more than a dense head takes at once."""
    with torch.device("meta"):
        model = VGGT(NANO).requires_grad_(False)
    images = torch.empty(num_images, 3, *SIZE, device="meta")
    # PyTorch's own counter knows the products of attention, not each of its kernels.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images)
    found, _ = products(NANO, SIZE)
    ours: dict[str, int] = {}
    for one in found:
        ours[one.layer] = ours.get(one.layer, 0) + one.at(num_images)
    theirs = counter.get_flop_counts()
    for layer, count in ours.items():
        inside = sum(number for name, number in ours.items() if name.startswith(f"{layer}."))
        assert sum(theirs[f"VGGT.{layer}"].values()) == count + inside, layer
    assert sum(ours.values()) == counter.get_total_flops()


def test_what_tracks_points_is_not_counted():
    assert NANO.track_head is not None
    assert products(NANO, SIZE) == products(dataclasses.replace(NANO, track_head=None), SIZE)
    model = VGGT(NANO).bfloat16()
    without = VGGT(dataclasses.replace(NANO, track_head=None)).bfloat16()
    assert Work(ready(model, "cpu"), SIZE).weight_bytes == memory_bytes(without) < memory_bytes(model)


@functools.cache
def model_and_products():
    return VGGT(NANO), products(NANO, SIZE)[0]


def engine(dtype, device="cuda", run=None, *, is_fast=False):
    """An engine as `ready` would make it on that device; counting looks at no weight's type."""
    model, _ = model_and_products()
    return Engine(
        model=model,
        device=torch.device(device),
        kernels={},
        compute_dtype=dtype,
        settings=run or RunSettings(),
        forward=model.forward if is_fast else None,
    )


def counted(one, num_images=3):
    return Work(one, SIZE).operations(num_images)


def nano(num_images=3, prefix="", kinds=("linear", "convolution", "scores", "values")):
    return total(model_and_products()[1], num_images, prefix, kinds)


def test_an_engine_multiplies_in_its_own_type():
    assert counted(engine("bfloat16", is_fast=True)) == {"bfloat16": nano()}
    assert counted(engine("float32", "cpu")) == {"float32": nano()}


def test_float32_attention_on_a_gpu_is_made_of_three_tf32_products():
    attention = nano(kinds=("scores", "values"))
    strict = counted(engine("float32"))
    assert strict == {"float32": nano() - attention, "tf32x3": attention}
    assert least_ms({"tf32x3": 1}, 0, H100) == pytest.approx(3 * least_ms({"tf32": 1}, 0, H100))
    in_tf32 = counted(engine("float32", run=RunSettings(engine="plain", tf32=True)))
    assert in_tf32 == {"tf32": nano() - attention, "tf32x3": attention}


def test_autocast_leaves_the_heads_in_float32_and_their_convolutions_in_tf32():
    found = counted(engine("float32", run=RunSettings(engine="plain", autocast="bfloat16")))
    assert found == {
        "bfloat16": nano(prefix="aggregator."),
        "tf32": nano(kinds=("convolution",)) - nano(prefix="aggregator.", kinds=("convolution",)),
        "float32": nano(prefix="camera_head", kinds=("linear",)),
        "tf32x3": nano(prefix="camera_head", kinds=("scores", "values")),
    }


@pytest.mark.parametrize(
    ("num_images", "tokens", "prefix"),
    [
        (3, 3 * TOKENS, "aggregator.global_blocks"),
        (3, 3 * TOKENS + 1, None),
        (3, 0, "aggregator.global_blocks"),  # frames are several sequences, which that attention does not take
        (1, TOKENS, "aggregator."),
    ],
)
def test_other_attention_takes_single_sequences_that_are_long_enough(num_images, tokens, prefix):
    scores, values = (nano(num_images, prefix, (kind,)) if prefix else 0 for kind in ("scores", "values"))
    float8 = RunSettings(attention="float8", attention_tokens=tokens)
    found = counted(engine("bfloat16", run=float8, is_fast=True), num_images)
    assert found.get("float8", 0) == scores + values and sum(found.values()) == nano(num_images)
    sage = RunSettings(attention="sageattention", attention_tokens=tokens)
    found = counted(engine("bfloat16", run=sage, is_fast=True), num_images)
    assert (found.get("int8", 0), found.get("float16", 0)) == (scores, values)
    assert counted(engine("bfloat16", run=float8), num_images) == {"bfloat16": nano(num_images)}  # the plain modules


@pytest.mark.parametrize(
    ("variant", "arithmetic"), [("int8_w8a8", "int8"), ("int8_symmetric", None), ("int4_group64", None)]
)
def test_packed_layers_multiply_in_what_their_format_does(variant, arithmetic):
    model = quantize_model(VGGT(NANO), variant, dtype=torch.bfloat16)
    packed = set(packed_layers(model))
    work = Work(ready(model, "cpu"), SIZE)
    inside = sum(one.at(3) for one in work.products if one.layer in packed)
    assert 0 < inside < nano()
    expected = {"bfloat16": nano() - inside, arithmetic: inside} if arithmetic else {"bfloat16": nano()}
    assert work.operations(3) == expected
    assert work.weight_bytes < Work(ready(VGGT(NANO).bfloat16(), "cpu"), SIZE).weight_bytes


def test_every_format_of_eight_bit_products_says_so():
    integers = {"w8a8", "w4a8", "torchao_int8", "bitsandbytes_int8", "humming_int8", "pytorch_dynamic_int8"}
    floats = {"fp8", "torchao_fp8", "humming_fp8"}
    expected = {name: "int8" if name in integers else "float8" if name in floats else None for name in formats.names()}
    assert {name: _arithmetic(name) for name in formats.names()} == expected


def _arithmetic(name):
    """Of a format's layer on a CPU, without its tensors."""
    cls = formats.layer(name)
    layer = cls.__new__(cls)
    torch.nn.Module.__init__(layer)
    layer.weight_packed, layer.weight_zero_point = torch.zeros(1), None
    return layer.arithmetic


def test_images_and_outputs_are_moved_once_and_weights_with_them():
    work = Work(ready(VGGT(NANO), "cpu"), SIZE)
    pixels = SIZE[0] * SIZE[1]
    # Colours; depth and points, each with a confidence; a pose of nine numbers.
    assert work.least_bytes(7) - work.least_bytes(5) == 2 * 4 * (3 * pixels + 2 * pixels + 4 * pixels + 9)
    assert work.least_bytes(1) - (work.least_bytes(2) - work.least_bytes(1)) == work.weight_bytes


def test_a_pass_takes_its_products_one_after_another_or_its_bytes_if_those_are_longer():
    operations = {"bfloat16": 989_400_000_000, "float8": 2 * 1_978_900_000_000}
    assert least_ms(operations, 3_350_000_000, H100) == pytest.approx(1 + 2)
    assert least_ms(operations, 4 * 3_350_000_000, H100) == pytest.approx(4)


@pytest.mark.parametrize(
    ("operations", "least_bytes", "device_name"),
    [
        ({"bfloat16": 1}, 1, "AMD EPYC 9654 96-Core Processor"),
        ({"bfloat16": 1, "float8": 1}, 1, "NVIDIA A100-SXM4-80GB"),
        ({}, None, H100),
    ],
)
def test_there_is_no_roofline_where_rates_or_counts_are_not_known(operations, least_bytes, device_name):
    assert least_ms(operations, least_bytes, device_name) is None


@pytest.mark.parametrize("name", GPUS)
def test_half_the_bits_are_twice_as_fast_on_every_gpu(name):
    """Tensor cores are built so; a figure with sparsity or one in the wrong column would break the row."""
    peaks = GPUS[name]
    assert peaks.bfloat16 / peaks.tf32 == pytest.approx(2, rel=0.02)
    # GeForce cards add 8-bit integers at full rate and floating point at half.
    integers = 4 if "GeForce" in name else 2
    assert peaks.int8 / peaks.bfloat16 == pytest.approx(integers, rel=0.03)
    assert peaks.float16 / peaks.bfloat16 == pytest.approx(integers / 2, rel=0.02)
    assert peaks.float8 is None or peaks.float8 / peaks.bfloat16 == pytest.approx(2, rel=0.03)
    assert peaks.float32 <= peaks.tf32 and 0.2 < peaks.terabytes_per_second < 10


def test_what_was_measured_took_longer_than_the_least(large):
    """Whole passes on an H100; more work at once comes nearer to the roofline."""
    sweep = read(SweepResult, MEASURED)
    shares = [
        least_ms({"bfloat16": total(large, size.num_images)}, sweep.weights_bytes, H100) / size.latency_ms_median
        for size in sweep.sizes
    ]
    assert sweep.provenance.device_name == H100
    assert shares == sorted(shares) and shares[0] > 0.25 and shares[-1] < 0.6


def test_a_sweep_keeps_what_was_counted_at_each_size(tmp_path):
    packed = make_checkpoint(prepare_model("nano-random"), load_variants()["bf16"], tmp_path, "cpu")
    sweep = measure_sweep(photos(tmp_path), packed, "cpu", num_images=[2, 1], repeats=1)
    height, width = sweep.image_size
    found, output_bytes = products(NANO, (height, width))
    assert [size.operations for size in sweep.sizes] == [{"bfloat16": total(found, n)} for n in (1, 2)]
    one, two = (size.least_bytes for size in sweep.sizes)
    assert two - one == output_bytes + 12 * height * width and 0 < one < sweep.weights_bytes + two - one
