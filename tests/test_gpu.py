"""On a CUDA GPU: the same answers as on the CPU, no hidden synchronisation, every variant end to end."""

import gzip
import json
from pathlib import Path

import pytest
import reference_adapter
import torch
from reference_adapter import as_tensor, worst_deviation
from safetensors.torch import load
from test_formats import SETTINGS, SHAPES, pack, packed_twin, seen

from vggt_quant.benchmark import sweep
from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import open_checkpoint, ready, run_device
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, formats, quantize
from vggt_quant.quantization import grid as grids
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results import decibels
from vggt_quant.variants import load_variants

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = load_variants()
OWN = [name for name in VARIANTS if not VARIANTS[name].optional]
WITH_KERNELS = [name for name in SETTINGS if name != "pytorch_dynamic_int8"]
ON_GPU = [name for name in OWN if name != "pytorch_dynamic_int8"]
IMAGES = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def golden(name):
    return load(gzip.decompress((GOLDEN / name).read_bytes()))


def test_the_original_values_come_out_on_the_gpu_in_true_fp32():
    config, scene = json.loads((GOLDEN / "tiny_conv.json").read_text()), golden("tiny_conv_scene.safetensors.gz")
    model = reference_adapter.build_model(config, golden("tiny_conv_weights.safetensors.gz")).cuda()
    outputs = ready(model, "cuda").run(scene["in.images_u8"].float() / 255)
    for name in ("pose_enc", "pose_enc_list"):
        # Ten times the CPU's tolerance: another device sums in another order.
        assert worst_deviation(as_tensor(outputs[name]).cpu(), scene[f"out.{name}"]) <= 5e-4


def test_a_memory_that_is_to_be_filled_holds_the_allocator_and_frees_it_again():
    def take():
        return torch.empty(3 * 2**29, dtype=torch.uint8, device="cuda")

    torch.cuda.empty_cache()
    with sweep._held_to(1, torch.device("cuda")), pytest.raises(torch.cuda.OutOfMemoryError):
        take()
    assert take().numel() == 1.5 * 2**30


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [(name, settings, shape) for name in WITH_KERNELS for settings in SETTINGS[name] for shape in SHAPES],
)
def test_formats_give_the_cpus_answer(name, settings, shape):
    _, packed = pack(name, settings, shape)
    x = torch.randn(2, 5, shape[1])
    expected, got = packed(x), packed.cuda()(x.cuda()).cpu()
    # fp32 sums in another order; 8-bit products leave the GPU as bfloat16, float8 is summed in fewer bits, and w4a8 is
    # float8 there and int8 here.
    tolerance = max(1e-2 if packed.arithmetic else 1e-4, 10 * packed.spec.kernel_error)
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 5, 17, 930])
@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name in WITH_KERNELS for settings in SETTINGS[name]]
)
def test_formats_multiply_bfloat16_by_the_weight_they_stand_for(name, settings, rows):
    linear, packed = pack(name, settings, (192, 1024))
    packed, x = packed.cuda(), torch.randn(rows, 1024).cuda().bfloat16()
    expected = torch.nn.functional.linear(seen(x.float(), packed), packed.dequantized(), linear.bias.cuda())
    got = packed(x)
    assert got.dtype == torch.bfloat16
    # bfloat16 weights or outputs keep 52 dB, float8 sums a little less; weights that w4a8 rounds again, to float8, 31.
    least_db = 40 if packed.arithmetic == "float8" else 45
    assert decibels.sqnr_db(expected, got) >= (least_db - 12 if packed.spec.kernel_error else least_db)


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name in WITH_KERNELS for settings in SETTINGS[name]]
)
def test_products_of_normal_data_keep_the_promised_sqnr(name, settings):
    torch.manual_seed(1)
    linear = torch.nn.Linear(1024, 3072, bias=False).cuda().requires_grad_(False)
    linear.weight.normal_()
    x = torch.randn(930, 1024).cuda().bfloat16()
    exact = linear(x.float())
    assert decibels.sqnr_db(exact, packed_twin(name, settings, linear)(x)) >= formats.spec(name).least_db


@pytest.mark.parametrize("name", ["w8a16", "w4a16"])
def test_integers_chosen_on_the_gpu_are_those_of_the_cpu(name):
    weight = torch.randn(256, 1000)
    packed = formats.layer(name)
    group_size = 128 if name == "w4a16" else None
    made = []
    for place in ("cpu", "cuda"):
        w = weight.to(place)
        grid = grids.fit(w, bits=packed.spec.bits, group_size=group_size)
        made.append(packed.from_integers(grids.to_integers(w, grid), grid, None))
    assert torch.equal(made[0].weight_packed, made[1].weight_packed.cpu())
    assert torch.equal(made[0].weight_scale, made[1].weight_scale.cpu())


def test_float8_chosen_on_the_gpu_is_that_of_the_cpu():
    linear = torch.nn.Linear(1000, 256).requires_grad_(False)
    made = [packed_twin("fp8", {}, linear.to(place)).cpu() for place in ("cpu", "cuda")]
    assert torch.equal(made[0].weight_scale, made[1].weight_scale)
    assert torch.equal(made[0].weight_packed.view(torch.uint8), made[1].weight_packed.view(torch.uint8))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ON_GPU)
def test_the_forward_pass_never_synchronises(name):
    model = load_pretrained(resolve("nano-random"), device="cuda")
    quantize.run(model, VARIANTS[name], dtype=getattr(torch, VARIANTS[name].dtype))
    images = IMAGES.cuda()
    with torch.inference_mode():
        model(images)
        try:
            torch.cuda.set_sync_debug_mode("error")
            model(images)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", OWN)
def test_a_checkpoint_made_on_the_gpu_runs_and_stays_close_to_fp32(name, tmp_path):
    fp32 = ready(load_pretrained(resolve("nano-random"), device="cuda"), "cuda").run(IMAGES)
    packed = make_checkpoint(prepare_model("nano-random"), VARIANTS[name], tmp_path, "cuda")
    place = run_device(packed.checkpoint, "cuda")
    assert place == ("cpu" if name == "pytorch_dynamic_int8" else "cuda")
    got = open_checkpoint(packed.checkpoint, place).run(IMAGES)
    assert decibels.sqnr_db(fp32["depth"].log().cpu(), got["depth"].log().cpu()) > (8 if "int4" in name else 15)
    assert checkpoint.memory_bytes(checkpoint.load_packed(packed.checkpoint, device=place)) == packed.weights_bytes
