"""What holds for VGGT whatever its weights, dtype and batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reference_adapter import as_tensor, worst_deviation
from torch import Tensor, nn

from vggt_quant.model import NAMED, VGGT, VGGTConfig
from vggt_quant.model.config import PatchEmbedConfig
from vggt_quant.model.dpt_head import FRAMES_PER_CHUNK
from vggt_quant.model.vggt import build_dense_head
from vggt_quant.model.vit import VisionTransformer

IMAGE_SIZE = (84, 112)


def build_nano() -> VGGT:
    torch.manual_seed(0)
    return VGGT(NAMED["nano"]).eval()


@pytest.fixture(scope="module")
def nano() -> VGGT:
    return build_nano()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def query_points() -> Tensor:
    return torch.tensor([[10.0, 20.0], [60.5, 40.25]])


@pytest.fixture(scope="module")
def expected(nano: VGGT, images: Tensor, query_points: Tensor) -> dict[str, Tensor]:
    return run(nano, images, query_points)


@torch.inference_mode()
def run(model: VGGT, images: Tensor, query_points: Tensor | None = None) -> dict[str, Tensor]:
    return {name: as_tensor(output) for name, output in model(images, query_points).items()}


def test_outputs_have_the_documented_shapes_and_are_float32(expected: dict[str, Tensor]) -> None:
    height, width = IMAGE_SIZE
    assert {name: tuple(value.shape) for name, value in expected.items()} == {
        "pose_enc": (1, 3, 9),
        "pose_enc_list": (4, 1, 3, 9),
        "depth": (1, 3, height, width, 1),
        "depth_conf": (1, 3, height, width),
        "world_points": (1, 3, height, width, 3),
        "world_points_conf": (1, 3, height, width),
        "images": (1, 3, 3, height, width),
        "track": (1, 3, 2, 2),
        "vis": (1, 3, 2),
        "conf": (1, 3, 2),
    }
    assert {value.dtype for value in expected.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in expected.values())


def test_a_batch_of_one_equals_no_batch(
    nano: VGGT, images: Tensor, query_points: Tensor, expected: dict[str, Tensor]
) -> None:
    batched = run(nano, images[None], query_points[None])
    assert all(torch.equal(batched[name], value) for name, value in expected.items())


def test_scenes_of_a_batch_do_not_see_each_other(
    nano: VGGT, images: Tensor, query_points: Tensor, expected: dict[str, Tensor]
) -> None:
    both = run(nano, torch.stack((images.flip(0), images)), torch.stack((query_points, query_points)))
    for name, value in expected.items():
        alone = both[name].narrow(1 if name == "pose_enc_list" else 0, 1, 1)
        # Larger matrix products round differently in float32; tracks amplify it.
        assert worst_deviation(alone, value) <= (1e-3 if name in ("track", "vis", "conf") else 5e-5), name


def test_later_frames_may_come_in_any_order_but_the_first_is_special(
    nano: VGGT, images: Tensor, expected: dict[str, Tensor]
) -> None:
    swapped = run(nano, images[[0, 2, 1]])
    # Attention sums over the frames in another order.
    assert worst_deviation(swapped["pose_enc"][:, [0, 2, 1]], expected["pose_enc"]) <= 5e-5
    assert worst_deviation(swapped["depth"][:, [0, 2, 1]], expected["depth"]) <= 5e-5
    rotated = run(nano, images[[1, 2, 0]])
    assert worst_deviation(rotated["depth"][:, [2, 0, 1]], expected["depth"]) > 5e-5


def test_more_frames_than_a_chunk_give_what_each_frame_gives_alone() -> None:
    config = NAMED["nano"].depth_head
    torch.manual_seed(3)
    head = build_dense_head(config)
    num_frames = FRAMES_PER_CHUNK + 3
    tokens = {layer: torch.randn(1, num_frames, 20, config.dim_in) for layer in config.intermediate_layer_idx}
    with torch.inference_mode():
        together = head(tokens, (56, 70))
        alone = [
            head({layer: kept[:, i : i + 1] for layer, kept in tokens.items()}, (56, 70)) for i in range(num_frames)
        ]
    # Convolutions may pick another algorithm for another batch.
    assert worst_deviation(together, torch.cat(alone, dim=1)) <= 1e-5


def test_no_more_frames_than_a_chunk_are_in_a_dense_head_at_once(nano: VGGT) -> None:
    seen: list[int] = []
    hook = nano.depth_head.scratch.output_conv1.register_forward_hook(lambda m, args, out: seen.append(len(out)))
    run(nano, torch.rand(FRAMES_PER_CHUNK + 1, 3, 14, 14))
    hook.remove()
    assert seen == [FRAMES_PER_CHUNK, 1]


# Of the rms, bfloat16's 8 bits leave 0.7 % in this model's poses and float16's 11 bits 0.09 %; three times that.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_low_precision_weights_give_nearly_the_same_float32_outputs(
    dtype: torch.dtype, tolerance: float, images: Tensor, query_points: Tensor, expected: dict[str, Tensor]
) -> None:
    low = run(build_nano().to(dtype), images, query_points)
    assert {value.dtype for value in low.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in low.values())
    for name in ("pose_enc", "depth", "depth_conf", "world_points"):
        rms = expected[name].square().mean().sqrt()
        assert (low[name] - expected[name]).square().mean().sqrt() <= tolerance * rms, name


def test_autocast_gives_nearly_the_same_float32_outputs(
    nano: VGGT, images: Tensor, query_points: Tensor, expected: dict[str, Tensor]
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = run(nano, images, query_points)
    assert {value.dtype for value in low.values()} == {torch.float32}
    # As bfloat16 weights above; not zero, or autocast would have reached nothing.
    rms = expected["pose_enc"].square().mean().sqrt()
    deviation = (low["pose_enc"] - expected["pose_enc"]).square().mean().sqrt()
    assert 0 < deviation <= 0.02 * rms


class OpaqueLinear(nn.Module):
    """A Linear of which nothing but its call can be seen."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._call: Callable[[Tensor], Tensor] = lambda x: linear(x)

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_linear_may_be_replaced_by_an_opaque_module(
    dtype: torch.dtype, images: Tensor, query_points: Tensor
) -> None:
    plain, opaque = build_nano().to(dtype), build_nano().to(dtype)
    # nn.MultiheadAttention reads the weight of its out_proj, which therefore is none to replace.
    names = [name for name, module in opaque.named_modules() if type(module) is nn.Linear]
    for name in names:
        opaque.set_submodule(name, OpaqueLinear(opaque.get_submodule(name)))
    assert len([name for name in names if name.startswith("aggregator.")]) == 4 * (1 + 2 + 2)
    outputs, reference = run(opaque, images, query_points), run(plain, images, query_points)
    assert all(torch.equal(outputs[name], value) for name, value in reference.items())


def test_a_model_built_on_meta_and_filled_by_assignment_is_whole(
    images: Tensor, query_points: Tensor, expected: dict[str, Tensor], nano: VGGT
) -> None:
    with torch.device("meta"):
        model = VGGT(NAMED["nano"]).eval()
    model.load_state_dict(nano.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    outputs = run(model, images, query_points)
    assert all(torch.equal(outputs[name], value) for name, value in expected.items())


def test_the_forward_pass_never_looks_at_a_value() -> None:
    """On the meta device there are no values: .item(), boolean indexing and the like raise there."""
    with torch.device("meta"):
        model = VGGT(NAMED["nano"]).eval()
        outputs = run(model, torch.rand(2, 3, *IMAGE_SIZE), torch.rand(5, 2))
    assert outputs["track"].shape == (1, 2, 5, 2)


def test_tables_first_built_in_inference_mode_serve_training(images: Tensor) -> None:
    model = build_nano()
    run(model, images)
    outputs = model(images)
    sum(outputs[name].mean() for name in ("pose_enc", "depth", "world_points")).backward()
    assert model.aggregator.camera_token.grad.abs().sum() > 0


def test_new_weights_change_a_positional_grid_already_used(images: Tensor) -> None:
    model = build_nano()
    before = run(model, images)["depth"]
    with torch.no_grad():
        model.aggregator.patch_embed.pos_embed.mul_(-10)
    assert not torch.equal(run(model, images)["depth"], before)


def test_only_layers_that_heads_read_are_kept(nano: VGGT, images: Tensor) -> None:
    with torch.inference_mode():
        assert set(nano.aggregator(images[None], {1})) == {1}
    assert _meta_vggt_1b().kept_layers() == {4, 11, 17, 23}


def _meta_vggt_1b() -> VGGT:
    with torch.device("meta"):
        return VGGT(NAMED["vggt-1b"])


def test_an_absent_head_leaves_out_its_outputs(images: Tensor) -> None:
    settings = NAMED["nano"].to_dict() | {"point_head": None, "track_head": None}
    model = VGGT(VGGTConfig.from_dict(settings)).eval()
    assert set(run(model, images)) == {"pose_enc", "pose_enc_list", "depth", "depth_conf", "images"}
    with pytest.raises(ValueError, match="without a track head"):
        run(model, images, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((2, 3, 100, 112), r"Images are 100 x 112 pixels; resize or crop both sides to multiples of 14\."),
        ((2, 3, 112, 113), "112 x 113"),
        ((3, 112, 112), r"Images have shape \[3, 112, 112\]; give"),
        ((1, 1, 2, 3, 112, 112), r"Images have shape \[1, 1, 2, 3, 112, 112\]"),
        ((2, 4, 112, 112), r"Images have shape \[2, 4, 112, 112\]"),
        ((0, 3, 112, 112), "no empty dimension"),
    ],
)
def test_images_of_a_wrong_shape_are_refused_in_a_sentence(nano: VGGT, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        nano(torch.zeros(shape))


def test_images_that_are_not_floating_point_are_refused(nano: VGGT) -> None:
    with pytest.raises(ValueError, match=r"torch.uint8; give floating-point values in \[0, 1\]"):
        nano(torch.zeros(1, 3, 14, 14, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2,), (3, 3), (2, 5, 2), (0, 2)])
def test_query_points_of_a_wrong_shape_are_refused(nano: VGGT, images: Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Query points have shape"):
        nano(images, torch.zeros(shape))


def test_the_vision_transformer_does_what_dinov2_says() -> None:
    """The golden model of this repository has no such transformer, so a second, plain statement of it stands in."""
    torch.manual_seed(2)
    config = PatchEmbedConfig(depth=2, num_heads=2, num_register_tokens=3)
    vit = VisionTransformer(config, img_size=28, patch_size=14, embed_dim=16)
    for name, parameter in vit.named_parameters():
        # Small tokens, so that the first norm feels its epsilon.
        nn.init.normal_(parameter, std=0.3 if name.startswith(("blocks", "norm")) else 0.003)
    images = torch.randn(2, 3, 28, 28)
    w = vit.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].mT + w[f"{name}.bias"]

    patches = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=14)
    patches = patches.permute(0, 2, 3, 1).reshape(2, 4, 16) + w["pos_embed"][:, 1:]
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).repeat(2, 1, 1)
    x = torch.cat((cls, w["register_tokens"].repeat(2, 1, 1), patches), dim=1)
    for block in ("blocks.0", "blocks.1"):
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").split(16, dim=-1)
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            scores = q[..., head] @ k[..., head].mT / 8**0.5
            heads.append(scores.softmax(-1) @ v[..., head])
        x = x + linear(torch.cat(heads, dim=-1), f"{block}.attn.proj") * w[f"{block}.ls1.gamma"]
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, f"{block}.mlp.fc2") * w[f"{block}.ls2.gamma"]
    # Float32 rounding through two blocks.
    torch.testing.assert_close(vit(images), norm(x, "norm")[:, 4:], rtol=1e-5, atol=1e-5)
