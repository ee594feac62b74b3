"""A dense head on maps with channels innermost (NHWC), its elementwise work inside few kernels.

What is rearranged, without changing the function: the 1x1 convolution of a fusion block comes before the resize, where
the map is four times smaller (both are linear, and the weights of a resize sum to one); the bias of `output_conv1`
is added after the resize; transposed convolutions whose stride is their kernel are matrix products; the last 1x1
convolution and the activation share a kernel. A level is only ever read through a ReLU, which its convolution includes.

Legend: F frames of a chunk, N patches, K token width, h w and H W map sizes, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggt_quant.kernels import maps, rows
from vggt_quant.model.dpt_head import FRAMES_PER_CHUNK, DPTHead, FusionBlock, ResidualConvUnit, plane_code
from vggt_quant.model.layers import TableCache

FRAMES_AT_IMAGE_SIZE = 2
"""The maps after the fusion are the largest of the whole pass (46 MB a frame of 350x518), and few fill a GPU."""


class FastDenseHead:
    """A `DPTHead` that ends in logits, with their activation."""

    def __init__(self, head: DPTHead, activation: str, codes: TableCache) -> None:
        self.head, self.activation, self.codes = head, activation, codes
        self.scratch: Any = head.scratch  # layers by upstream's names
        self.levels: list[tuple[Any, Any]] = list(zip(head.projects, head.resize_layers, strict=True))
        convolutions = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)]
        self.weights = {layer: _channels_last(layer.weight.detach()) for layer in convolutions}
        """Copies, but for those that `lay_out` has seen to."""
        self.grow = [_as_matrix(layer) for _, layer in self.levels[:2]]

    def run(self, kept: dict[int, Tensor], num_special: int, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens [S, P, K] by aggregator layer to values [S, H, W, V] and confidences [S, H, W], float32."""
        levels = [kept[layer][:, num_special:] for layer in self.head.layers]
        frames, outputs = len(levels[0]), self.scratch.output_conv2[2].out_channels
        values = levels[0].new_empty(frames, *image_size, outputs - 1, dtype=torch.float32)
        confidence = values.new_empty(frames, *image_size)
        for start in range(0, frames, FRAMES_PER_CHUNK):
            chunk = slice(start, start + FRAMES_PER_CHUNK)
            self._chunk([level[chunk] for level in levels], image_size, values[chunk], confidence[chunk])
        return values, confidence

    def _chunk(self, levels_FNK: list[Tensor], image_size: tuple[int, int], values: Tensor, confidence: Tensor) -> None:
        levels = [self._level(i, level_FNK, image_size) for i, level_FNK in enumerate(levels_FNK)]
        fused_FhwC = self._fuse(levels)
        del levels
        for start in range(0, len(fused_FhwC), FRAMES_AT_IMAGE_SIZE):
            few = slice(start, start + FRAMES_AT_IMAGE_SIZE)
            self._finish(fused_FhwC[few], image_size, values[few], confidence[few])

    def _finish(self, fused_FhwC: Tensor, image_size: tuple[int, int], values: Tensor, confidence: Tensor) -> None:
        """Grow to twice the size of the finest level, to the size of the images, and end."""
        scratch = self.scratch
        inner, _, outer = scratch.output_conv2
        hidden = self._conv(maps.resize(fused_FhwC, _twice(fused_FhwC)), scratch.output_conv1)
        codes = self._codes(hidden, image_size, image_size)
        hidden = self._conv(maps.resize(hidden, image_size, scratch.output_conv1.bias, *codes), inner)
        maps.dense_output(hidden, inner.bias, outer.weight.flatten(1), outer.bias, self.activation, values, confidence)

    def _level(self, level: int, tokens_FNK: Tensor, image_size: tuple[int, int]) -> Tensor:
        """ReLU of a level [F, h, w, C]."""
        grid = image_size[0] // self.head.patch_size, image_size[1] // self.head.patch_size
        norm, (project, resize) = self.head.norm, self.levels[level]
        tokens_MK = rows.layer_norm(tokens_FNK, norm.weight, norm.bias, norm.eps, "bfloat16")
        x_FhwC = functional.linear(tokens_MK, project.weight.flatten(1), project.bias).view(
            -1, *grid, project.out_channels
        )
        code_hC, code_wC = self._codes(x_FhwC, grid, image_size)
        if code_hC is not None and code_wC is not None:
            x_FhwC += (code_hC[:, None] + code_wC).to(x_FhwC.dtype)
        if level < 2:
            x_FhwC = _grow(x_FhwC, self.grow[level], resize)
        elif level == 3:
            x_FhwC = self._conv(x_FhwC, resize, with_bias=True)
        return self._conv_relu(x_FhwC, getattr(self.scratch, f"layer{level + 1}_rn"))

    def _fuse(self, levels: list[Tensor]) -> Tensor:
        """Coarse to fine; each block grows to the next finer level's size, the last one in `_finish`."""
        scratch = self.scratch
        x = self._refine(scratch.refinenet4, levels[3])
        for block, level in ((3, 2), (2, 1), (1, 0)):
            fusion, skip = getattr(scratch, f"refinenet{block}"), levels[level]
            x = maps.resize(x, (skip.shape[1], skip.shape[2]))
            x = self._refine(fusion, self._residual_unit(fusion.resConfUnit1, skip, x, relu=True))
        return x

    def _codes(
        self, like: Tensor, size: tuple[int, int], image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The code of the plane as float32 rows [h, C] and columns [w, C]: half of the channels depend on each."""
        if not self.head.plane_codes:
            return None, None
        channels, aspect = like.shape[-1], image_size[1] / image_size[0]
        key, like = (channels, *size, aspect), like.new_empty(0, dtype=torch.float32)
        both_LC = self.codes.get(key, like, lambda: _split_code(plane_code(channels, *size, aspect)))
        return both_LC[: size[0]], both_LC[size[0] :]

    def _refine(self, block: FusionBlock, relu_FhwC: Tensor) -> Tensor:
        """The second half of a fusion block without its resize, from the ReLU of what its first half summed."""
        refined = self._residual_unit(block.resConfUnit2, relu_FhwC, None, relu=False)
        return functional.linear(refined, block.out_conv.weight.flatten(1), block.out_conv.bias)

    def _residual_unit(self, unit: ResidualConvUnit, relu_FhwC: Tensor, other: Tensor | None, *, relu: bool) -> Tensor:
        """The unit's output, plus `other`, then perhaps ReLU; from the ReLU of its input."""
        change = self._conv(self._conv_relu(relu_FhwC, unit.conv1), unit.conv2)
        return maps.finish(change, unit.conv2.bias, relu=relu, first=relu_FhwC, second=other)

    def _conv(self, x_FhwC: Tensor, conv: nn.Conv2d, *, with_bias: bool = False) -> Tensor:
        bias = conv.bias if with_bias else None
        x = x_FhwC.permute(0, 3, 1, 2)
        return functional.conv2d(x, self.weights[conv], bias, conv.stride, conv.padding).permute(0, 2, 3, 1)

    def _conv_relu(self, x_FhwC: Tensor, conv: nn.Conv2d) -> Tensor:
        """CuDNN adds bias and ReLU for nothing; after a plain convolution they take half as long as it."""
        x = x_FhwC.permute(0, 3, 1, 2)
        if x.is_cuda:
            y = torch.cudnn_convolution_relu(
                x, self.weights[conv], conv.bias, conv.stride, _pair(conv.padding), (1, 1), 1
            )
        else:
            y = functional.conv2d(x, self.weights[conv], conv.bias, conv.stride, conv.padding).relu()
        return y.permute(0, 2, 3, 1)


def _split_code(code_Chw: Tensor) -> Tensor:
    """[h + w, C]: what each row and what each column adds; the first half of the channels depends on the column."""
    half = len(code_Chw) // 2
    code_hC, code_wC = code_Chw[:, :, 0].t().clone(), code_Chw[:, 0].t().clone()
    code_hC[:, :half] = 0
    code_wC[:, half:] = 0
    return torch.cat((code_hC, code_wC))


def _pair(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str), padding
    return padding


def _twice(x_FhwC: Tensor) -> tuple[int, int]:
    return 2 * x_FhwC.shape[1], 2 * x_FhwC.shape[2]


def lay_out(head: DPTHead) -> None:
    """Put the channels of the convolutions' weights innermost, in place of what the fast pass would copy."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = _channels_last(layer.weight.data)


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _as_matrix(layer: nn.ConvTranspose2d) -> Tensor:
    """Weight [C, c, k, k] of a transposed convolution whose stride is its kernel, as a Linear's [k k c, C]."""
    assert layer.kernel_size == layer.stride, layer
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def _grow(x_FhwC: Tensor, matrix: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Each pixel becomes k x k pixels."""
    k, (frames, height, width, _) = layer.kernel_size[0], x_FhwC.shape
    pixels = functional.linear(x_FhwC, matrix).view(frames, height, width, k, k, -1)
    assert layer.bias is not None
    return (pixels + layer.bias).permute(0, 1, 3, 2, 4, 5).reshape(frames, height * k, width * k, -1)
