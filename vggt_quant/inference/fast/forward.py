"""The whole forward pass of one scene on the kernels, for bfloat16 models.

Legend: S frames, P tokens of a frame (special ones first), N patches, D width, M = S P tokens, H W image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggt_quant.inference.attention import _choice as attentions
from vggt_quant.inference.attention.base import Attend
from vggt_quant.inference.fast.blocks import FastBlock, Stream
from vggt_quant.inference.fast.camera_head import FastCameraHead
from vggt_quant.inference.fast.dense_head import FastDenseHead
from vggt_quant.kernels import rows
from vggt_quant.model import VGGT
from vggt_quant.model.aggregator import token_positions
from vggt_quant.model.layers import Block, TableCache, rotary_table
from vggt_quant.model.vit import VisionTransformer, resize_positions
from vggt_quant.variants import DEFAULT, RunSettings

STREAM_DTYPE = torch.bfloat16


def unsupported(model: VGGT, device: torch.device, attention: str = "bfloat16") -> str | None:
    """Why the kernels cannot run this model with this attention there, or None."""
    if any(part.dtype != torch.bfloat16 for part in model.parameters() if part.is_floating_point()):
        return "its weights are not bfloat16"
    heads = model.config.aggregator.num_heads
    if not _are_powers_of_two(heads, model.aggregator.head_dim):
        return f"{heads} heads of {model.aggregator.head_dim} are not powers of two"
    dense = [head.features for head in (model.config.depth_head, model.config.point_head) if head]
    if not _are_powers_of_two(*dense):
        return f"the {max(dense)} features of a dense head are no power of two"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} has no bfloat16"
    reasons = (attentions.unsupported(device, width, attention) for width in _head_widths(model))
    return next(filter(None, reasons), None)


def _head_widths(model: VGGT) -> tuple[int, ...]:
    """Of the aggregator's blocks, and of the vision transformer's where there is one."""
    embed = model.config.patch_embed
    own = (model.config.embed_dim // embed.num_heads,) if embed.type == "dinov2" else ()
    return (model.aggregator.head_dim, *own)


def _are_powers_of_two(*numbers: int) -> bool:
    return all(number & (number - 1) == 0 for number in numbers)


class FastForward:
    """A model's forward pass for images [S, 3, H, W]; the outputs are those of `VGGT.forward`."""

    def __init__(self, model: VGGT, device: torch.device, settings: RunSettings = DEFAULT) -> None:
        aggregator = model.aggregator
        self.model, self.device, self.tables = model, device, TableCache()
        # Kept, because cuBLAS keeps 32 MiB for each stream that it has ever worked on.
        is_gpu = device.type == "cuda"
        self.side_stream = torch.cuda.Stream(device) if is_gpu else None  # type: ignore[no-untyped-call]  # PyTorch's
        runs = [
            attentions.attend(device, width, settings.attention, settings.attention_tokens)
            for width in _head_widths(model)
        ]
        self.frame_blocks = _fast(aggregator.frame_blocks, runs[0])
        self.global_blocks = _fast(aggregator.global_blocks, runs[0])
        embed = aggregator.patch_embed
        self.vit_blocks = _fast(getattr(embed, "blocks", ()), runs[-1])
        self.camera_head = model.camera_head and FastCameraHead(model.camera_head)
        self.dense_heads = {}
        for name, values, config in (
            ("depth", model.depth_head, model.config.depth_head),
            ("world_points", model.point_head, model.config.point_head),
        ):
            if values is not None and config is not None:
                self.dense_heads[name] = FastDenseHead(values, config.activation, self.tables)

    def __call__(self, images_S3HW: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """Run the pass; nothing in it waits for the device. Images that `VGGT.forward` refuses are refused here."""
        self.model._check_images(images_S3HW)
        kept = self._aggregate(images_S3HW.float())
        last = kept[self.model.config.aggregator.depth - 1]
        outputs: dict[str, Tensor | list[Tensor]] = {}
        # A few tokens cannot fill a GPU: the camera head runs at the same time as the dense ones.
        with _beside(self.side_stream):
            poses = self.camera_head.run(last[:, 0]) if self.camera_head else []
        size, special = (images_S3HW.shape[-2], images_S3HW.shape[-1]), self.model.aggregator.num_special
        for name, head in self.dense_heads.items():
            values, confidence = head.run(kept, special, size)
            outputs |= {name: values[None], f"{name}_conf": confidence[None]}
        if self.side_stream is not None:
            torch.cuda.current_stream().wait_stream(self.side_stream)
        if poses:
            outputs |= {"pose_enc": poses[-1][None], "pose_enc_list": [pose[None] for pose in poses]}
        return outputs | {"images": images_S3HW.float()[None]}

    def _aggregate(self, images_S3HW: Tensor) -> dict[int, Tensor]:
        aggregator = self.model.aggregator
        frames, wanted = len(images_S3HW), self.model.kept_layers()
        height, width = images_S3HW.shape[-2:]
        grid = height // aggregator.patch_size, width // aggregator.patch_size
        stream = Stream(self._embed(images_S3HW, grid))
        rotary = self._rotary(grid)
        kept: dict[int, Tensor] = {}
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            frame_block.run(stream, frames, rotary)
            if layer in wanted:
                framewise = stream.settle()
                kept[layer] = framewise.new_empty(frames, len(framewise) // frames, 2 * framewise.shape[1])
                kept[layer][..., : framewise.shape[1]] = framewise.view(frames, -1, framewise.shape[1])
            global_block.run(stream, 1, rotary)
            if layer in wanted:
                x_MD = stream.settle()
                kept[layer][..., x_MD.shape[1] :] = x_MD.view(frames, -1, x_MD.shape[1])
        return kept

    def _embed(self, images_S3HW: Tensor, grid: tuple[int, int]) -> Tensor:
        """[M, D]: special tokens and patch tokens of each frame."""
        aggregator, frames = self.model.aggregator, len(images_S3HW)
        normalised = aggregator._normalise(images_S3HW[None])[0]
        embed = aggregator.patch_embed
        if isinstance(embed, VisionTransformer):
            patches_SND = self._vision_transformer(embed, normalised, grid)
        else:
            patches_SND = embed(normalised)
        special = aggregator.num_special
        x_SPD = patches_SND.new_empty(frames, special + patches_SND.shape[1], patches_SND.shape[2], dtype=STREAM_DTYPE)
        x_SPD[:, :special] = aggregator._expand_special(1, frames)[0]
        x_SPD[:, special:] = patches_SND
        return x_SPD.flatten(0, 1)

    def _vision_transformer(self, vit: VisionTransformer, images_S3HW: Tensor, grid: tuple[int, int]) -> Tensor:
        """Normalised patch tokens [S, N, D]."""
        frames, registers = len(images_S3HW), vit.register_tokens.shape[1]
        positions_LD = self.tables.get(
            ("positions", grid), vit.pos_embed, lambda: resize_positions(vit.pos_embed, grid)[0]
        )
        patches_SND = _embed_patches(vit.patch_embed.proj, images_S3HW)
        x_SPD = patches_SND.new_empty(frames, 1 + registers + patches_SND.shape[1], patches_SND.shape[2])
        x_SPD[:, :1] = vit.cls_token[0] + positions_LD[:1]
        x_SPD[:, 1 : 1 + registers] = vit.register_tokens
        torch.add(patches_SND, positions_LD[1:], out=x_SPD[:, 1 + registers :])
        stream = Stream(x_SPD.flatten(0, 1).to(STREAM_DTYPE))
        for block in self.vit_blocks:
            block.run(stream, frames)
        x_SPD = stream.settle().view(x_SPD.shape)[:, 1 + registers :]
        normed = rows.layer_norm(x_SPD, vit.norm.weight, vit.norm.bias, vit.norm.eps, "bfloat16")
        return normed.view(frames, -1, normed.shape[1])

    def _rotary(self, grid: tuple[int, int]) -> Tensor:
        aggregator = self.model.aggregator
        like = torch.empty((), device=self.device)
        return self.tables.get(
            ("rotary", grid),
            like,
            lambda: rotary_table(
                token_positions(grid, aggregator.num_special), aggregator.head_dim, aggregator.rope_freq
            ),
        )


def _fast(blocks: Iterable[nn.Module], attend: Attend) -> list[FastBlock]:
    return [FastBlock(cast(Block, block), attend) for block in blocks]


def _embed_patches(conv: nn.Conv2d, images_S3HW: Tensor) -> Tensor:
    """A convolution whose stride is its kernel, as one matrix product: [S, N, D]."""
    (size, _), channels = conv.kernel_size, conv.in_channels
    patches = images_S3HW.to(conv.weight.dtype).unfold(2, size, size).unfold(3, size, size)
    patches_SNK = patches.permute(0, 2, 3, 1, 4, 5).reshape(len(images_S3HW), -1, channels * size * size)
    return functional.linear(patches_SNK, conv.weight.flatten(1), conv.bias)


@contextlib.contextmanager
def _beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work inside goes to the other stream, after what this one was given before."""
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
