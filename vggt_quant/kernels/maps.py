"""Kernels between the convolutions of a dense head, on maps whose channels lie innermost (NHWC).

Legend: F frames, h w and H W map sizes, C channels, O output channels.
"""

# What Triton compiles is typed by Triton, at the call.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vggt_quant.kernels import cast

ELEMENTS = 2048
"""Values that a program of `resize` makes."""


@triton.jit
def _resize(x, bias, code_y, code_x, out, pixels, h, w, H, W, step_y, step_x, C: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, C)[None, :]
    inside = (pixel < pixels)[:, None]
    frame, y, x_column = pixel // (H * W), pixel // W % H, pixel % W
    at_y, at_x = y.to(tl.float32) * step_y, x_column.to(tl.float32) * step_x
    top, left = tl.minimum(at_y.to(tl.int32), h - 1), tl.minimum(at_x.to(tl.int32), w - 1)
    bottom, right = tl.minimum(top + 1, h - 1), tl.minimum(left + 1, w - 1)
    down, along = (at_y - top.to(tl.float32))[:, None], (at_x - left.to(tl.float32))[:, None]
    upper, lower = (frame * h + top) * w, (frame * h + bottom) * w
    a = tl.load(x + (upper + left)[:, None] * C + c, inside, 0.0).to(tl.float32)
    b = tl.load(x + (upper + right)[:, None] * C + c, inside, 0.0).to(tl.float32)
    d = tl.load(x + (lower + left)[:, None] * C + c, inside, 0.0).to(tl.float32)
    e = tl.load(x + (lower + right)[:, None] * C + c, inside, 0.0).to(tl.float32)
    first, second = a + along * (b - a), d + along * (e - d)
    value = first + down * (second - first)
    if bias is not None:
        value += tl.load(bias + c).to(tl.float32)
    if code_y is not None:
        value += tl.load(code_y + y[:, None] * C + c, inside, 0.0)
        value += tl.load(code_x + x_column[:, None] * C + c, inside, 0.0)
    tl.store(out + pixel[:, None] * C + c, cast.to(value, out.dtype.element_ty), inside)


def resize(
    x_FhwC: Tensor,
    size: tuple[int, int],
    bias_C: Tensor | None = None,
    code_HC: Tensor | None = None,
    code_WC: Tensor | None = None,
) -> Tensor:
    """Bilinear with corner pixels on corner pixels, plus a bias and a code of rows and columns: [F, H, W, C]."""
    frames, h, w, channels = x_FhwC.shape
    out = x_FhwC.new_empty(frames, *size, channels)
    pixels = frames * size[0] * size[1]
    steps = [(small - 1) / (large - 1) if large > 1 else 0.0 for small, large in zip((h, w), size, strict=True)]
    block = max(1, ELEMENTS // channels)
    _resize[(triton.cdiv(pixels, block),)](
        x_FhwC.contiguous(), bias_C, code_HC, code_WC, out, pixels, h, w, *size, *steps,
        C=channels, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _finish(x, bias, first, second, out, total, RELU: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < total
    y = tl.load(x + place, inside, 0.0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + place % C).to(tl.float32)
    if first is not None:
        y += tl.load(first + place, inside, 0.0).to(tl.float32)
    if second is not None:
        y += tl.load(second + place, inside, 0.0).to(tl.float32)
    if RELU:
        y = cast.relu(y)
    tl.store(out + place, cast.to(y, out.dtype.element_ty), inside)


def finish(
    x_FHWC: Tensor, bias_C: Tensor | None, *, relu: bool, first: Tensor | None = None, second: Tensor | None = None
) -> Tensor:
    """X + bias + first + second, then perhaps ReLU, written over `x_FHWC`, which is returned."""
    parts = [part for part in (x_FHWC, first, second) if part is not None]
    assert all(part.is_contiguous() for part in parts), [part.stride() for part in parts]
    total, block = x_FHWC.numel(), 2048
    _finish[(triton.cdiv(total, block),)](
        x_FHWC, bias_C, first, second, x_FHWC, total, RELU=relu, C=x_FHWC.shape[-1], BLOCK=block, num_warps=8
    )
    return x_FHWC


@triton.jit
def _dense_output(
    x, inner_bias, weight, bias, values, confidence, pixels, C: tl.constexpr, OUTPUTS: tl.constexpr, KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c, inside = tl.arange(0, C), pixel < pixels
    hidden = tl.load(x + pixel[:, None] * C + c[None, :], inside[:, None], 0.0).to(tl.float32)
    hidden = cast.relu(hidden + tl.load(inner_bias + c).to(tl.float32)[None, :])
    for o in tl.static_range(OUTPUTS):
        row = tl.load(weight + o * C + c).to(tl.float32)
        y = tl.sum(hidden * row[None, :], 1) + tl.load(bias + o).to(tl.float32)
        if o == OUTPUTS - 1:
            tl.store(confidence + pixel, 1.0 + tl.exp(y), inside)
        elif KIND == "exp":
            tl.store(values + pixel * (OUTPUTS - 1) + o, tl.exp(y), inside)
        else:
            # expm1 of small values by its series: exp(y) - 1 would lose their digits.
            size = tl.abs(y)
            grown = tl.where(size < 0.03, size + 0.5 * size * size + size * size * size / 6, tl.exp(size) - 1)
            tl.store(values + pixel * (OUTPUTS - 1) + o, tl.where(y < 0, -grown, grown), inside)


def dense_output(
    x_FHWC: Tensor,
    inner_bias_C: Tensor,
    weight_OC: Tensor,
    bias_O: Tensor,
    activation: str,
    values_FHWV: Tensor,
    confidence_FHW: Tensor,
) -> None:
    """The end of a dense head: bias and ReLU of the last 3x3 convolution, the 1x1 one, and the activation.

    Args:
        x_FHWC: the 3x3 convolution's output, without its bias.
        inner_bias_C: that bias.
        weight_OC: the 1x1 convolution; the last output is the confidence.
        bias_O: its bias.
        activation: "exp", or "inv_log" for sign(y) * expm1(|y|).
        values_FHWV: where the values go, float32, V = O - 1.
        confidence_FHW: where the confidences go, float32.
    """
    outputs, pixels, block = weight_OC.shape[0], confidence_FHW.numel(), 128
    parts = (x_FHWC, values_FHWV, confidence_FHW)
    assert all(part.is_contiguous() for part in parts), [part.stride() for part in parts]
    _dense_output[(triton.cdiv(pixels, block),)](
        x_FHWC, inner_bias_C, weight_OC, bias_O, values_FHWV, confidence_FHW, pixels, C=x_FHWC.shape[-1],
        OUTPUTS=outputs, KIND=activation, BLOCK=block, num_warps=4,
    )  # fmt: skip
