"""Other libraries on a CUDA GPU: each product against the plain twin, in a CUDA graph, and in the whole small model.

What is not installed is skipped:  pip install 'vggt-quant[peers]'
"""

import pytest
import torch
from fast_cases import dequantized, run, sqnr_db
from kernel_cases import COMPILED
from test_formats import PEERS, pack

from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.attention import _choice as attention
from vggt_quant.inference.attention import torch_sdpa
from vggt_quant.inference.engine import open_checkpoint
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import checkpoint, formats
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results import decibels
from vggt_quant.variants import load_variants

pytestmark = COMPILED
GPU = torch.device("cuda")
VARIANTS = load_variants()
RUN_HERE = [name for name, variant in VARIANTS.items() if variant.optional] + ["bf16_compiled"]
IN_GRAPHS = [name for name in PEERS if formats.layer(name).in_graphs]
# Activations in int8 keep 41 dB of normal data and those in float8 31; bfloat16 keeps 50 of a product.
LEAST_DB = {name: {"int8": 36, "float8": 30}.get(formats.layer(name).multiplies_in, 45) for name in PEERS}
# Groups that VGGT's variants have: narrower ones are the conformance suite's, for its small layers.
SETTINGS = {name: PEERS[name][0] for name in PEERS} | {"humming_int4": {"group_size": 128}}


def loaded(name, shape):
    """A layer on the CPU and its like on the GPU, handed over to its library."""
    reason = formats.layer(name).unsupported(GPU)
    if reason:
        pytest.skip(reason)
    _, packed = pack(name, SETTINGS[name], shape)
    tensors = {key: tensor.cuda() for key, tensor in packed.tensors().items()}
    tensors["bias"] = tensors["bias"].bfloat16()
    return packed, type(packed).from_tensors(packed.fields(), tensors)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", [(3072, 1024), (1024, 4096), (64, 128)])
@pytest.mark.parametrize("rows", [5, 17, 930, 4650])
def test_a_library_multiplies_the_weights_that_the_format_stands_for(name, shape, rows):
    shape = tuple(max(side, formats.layer(name).multiple_of) for side in shape)
    packed, layer = loaded(name, shape)
    assert layer.kernel(GPU).startswith(layer.spec.distribution)
    x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = torch.nn.functional.linear(x.float(), packed.dequantized(), packed.bias)
    with torch.inference_mode():
        got = layer(x.cuda())
    assert got.dtype == torch.bfloat16
    assert decibels.sqnr_db(exact, got.cpu()) >= LEAST_DB[name]


@pytest.mark.parametrize("name", PEERS)
def test_a_library_holds_the_weights_once(name):
    packed, layer = loaded(name, (1024, 1024))
    on_gpu = sum(buffer.nbytes for buffer in layer.buffers()) + layer.hidden_bytes()
    # Scales in float32, state of the library, and zeros that fill up: a few kilobytes.
    assert packed.packed_bytes() <= on_gpu <= 1.05 * packed.packed_bytes() + 16_384
    assert all(torch.equal(layer.tensors()[key].cpu(), packed.tensors()[key]) for key in packed.layout(packed.fields())
               if key in packed.tensors() and key != "bias")  # fmt: skip


@pytest.mark.parametrize("name", IN_GRAPHS)
def test_a_product_can_be_part_of_a_cuda_graph(name):
    _, layer = loaded(name, (1024, 1024))
    x, stream, graph = torch.randn(930, 1024, device="cuda").bfloat16(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            layer.multiply(x)
        with torch.cuda.graph(graph, stream=stream):
            captured = layer.multiply(x)
        x.copy_(torch.randn(930, 1024))
        graph.replay()
        assert decibels.sqnr_db(layer.multiply(x), captured) > 50


def test_sides_that_a_library_does_not_multiply_are_said_with_the_cure():
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match=r"multiples of 16, not 100 -> 64; keep that layer by the variant's policy"):
        loaded("torchao_fp8", (64, 100))


@pytest.mark.parametrize("width", [64])
def test_sageattention_is_close_to_exact_attention(width):
    reason = attention.unsupported(GPU, width, "sageattention")
    if reason:
        pytest.skip(reason)
    qkv = torch.randn(8_000, 3 * 16 * width, device="cuda").bfloat16()
    exact = torch_sdpa.attend(qkv.clone(), 1, 16)
    got = attention.attend(GPU, width, "sageattention")(qkv, 1, 16)
    assert not torch.equal(exact, got)
    assert decibels.sqnr_db(exact, got) >= 30  # 1.3 percent of random data


# What torch.compile of CUDA builds says of its own caches and of TF32 is no business of ours.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", RUN_HERE)
def test_the_small_model_runs_in_every_peer_the_way_its_variant_says(name, tmp_path):
    variant, images = VARIANTS[name], torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)).cuda()
    kind = variant.config.get("format", "bitsandbytes_nf4" if variant.method == "round_to_nf4" else None)
    reason = kind and formats.layer(kind).unsupported(GPU)
    reason = reason or attention.unsupported(GPU, 64, variant.run.attention)
    if reason:
        pytest.skip(reason)
    path = make_checkpoint(prepare_model("tiny"), variant, tmp_path, "cuda").checkpoint
    opened = open_checkpoint(path, "cuda", variant.run)
    way = "plain" if variant.run.compile else None if variant.run.engine == "plain" else "fast"
    assert opened.kernels.get("engine", "").startswith(way or "")
    assert kind is None or "reference" not in opened.kernels[kind]
    exact = dequantized(checkpoint.load_packed(path)) if kind else load_pretrained(resolve("tiny"))
    # Activations in float8 leave 23 dB of the poses, measured on a CPU.
    found = sqnr_db([run(exact.cuda(), images)], [run(opened.run, images)])
    assert all(level >= 15 for level in found.values()), found
    torch._dynamo.reset()
