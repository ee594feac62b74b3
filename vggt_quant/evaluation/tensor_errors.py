"""How far a quantized model's output tensors are from the original's, tensor by tensor: pure functions of tensors.

Every comparison uses detached CPU copies, rounded to float32 and summed in float64. So the device and compute dtype of
a variant change its values, but not how they are compared. A figure that does not exist (an infinite ratio, a map
smaller than the SSIM window) is None. What prevents a comparison (NaN, another shape) is a sentence in `error`: a
broken variant raises no exception here.

Both sides are the same model, so no alignment is done: a shift of the whole scene is an error like any other.
SSIM: Wang et al. 2004, uniform 7x7 window as in scikit-image.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from vggt_quant.results.record import finite
from vggt_quant.results.scene_schema import TensorError

DENSE_MAPS = ("depth", "depth_conf", "world_points", "world_points_conf")
"""Outputs with one value or vector a pixel, [B, S, H, W] or [B, S, H, W, C]: those that have an SSIM."""
INPUT_ECHO = "images"
"""VGGT returns its input with the outputs; comparing it would flatter every variant."""
SSIM_WINDOW = 7


def tensor_error(reference: Tensor, candidate: Tensor, *, is_map: bool) -> TensorError:
    """Compare one output tensor with its reference.

    Args:
        reference: The fp32 output, any shape.
        candidate: The variant's output; another shape, a NaN or an infinity gives a row with `error`.
        is_map: The tensor is [..., frames, H, W] or [..., frames, H, W, C] with C = 1 or 3; SSIM is computed.

    Returns:
        MAE, MSE, largest error, PSNR (dB; its peak is the largest minus the smallest reference value), SSIM, cosine and
        SQNR (dB).
    """
    shape, dtype = list(candidate.shape), str(candidate.dtype).removeprefix("torch.")
    if error := _spoiled(reference, candidate):
        return TensorError(shape=shape, dtype=dtype, error=error)
    reference, candidate = comparable(reference), comparable(candidate)
    peak, difference = float(reference.max() - reference.min()), candidate - reference
    mse = float(difference.square().mean())
    return TensorError(
        shape=shape,
        dtype=dtype,
        mae=float(difference.abs().mean()),
        mse=mse,
        max_abs=float(difference.abs().max()),
        psnr_db=_decibels(peak**2, mse),
        psnr_peak=peak,
        ssim=_mean_ssim(reference, candidate, peak) if is_map else None,
        cosine=_cosine(reference.flatten(), candidate.flatten()),
        sqnr_db=_decibels(float(reference.square().mean()), mse),
        identical=torch.equal(reference, candidate),
    )


def _spoiled(reference: Tensor, candidate: Tensor) -> str | None:
    """Why the two cannot be compared."""
    if reference.shape != candidate.shape:
        return f"its shape is {list(candidate.shape)}, but the reference's is {list(reference.shape)}"
    if reference.numel() == 0:
        return "it has no values"
    for name, tensor in (("it", candidate), ("the reference", reference)):
        bad = int((~torch.isfinite(comparable(tensor))).sum())
        if bad:
            return f"{bad} of {tensor.numel()} values of {name} are not finite (NaN or infinity)"
    return None


def output_errors(
    reference: Mapping[str, Any], candidate: Mapping[str, Any]
) -> tuple[dict[str, TensorError], list[str]]:
    """Compare two output dictionaries of VGGT, tensor by tensor.

    Returns:
        The `tensor_error` of each output that is a tensor on both sides, and notes on every other entry.
    """
    errors: dict[str, TensorError] = {}
    notes = []
    for name in sorted(reference.keys() | candidate.keys()):
        if name not in reference or name not in candidate:
            notes.append(f"{name}: missing in the {'reference' if name not in reference else 'variant'}")
        elif name == INPUT_ECHO:
            notes.append(f"{name}: the input echoed, not compared")
        elif isinstance(reference[name], Tensor) and isinstance(candidate[name], Tensor):
            errors[name] = tensor_error(reference[name], candidate[name], is_map=name in DENSE_MAPS)
        else:
            notes.append(f"{name}: {_describe(reference[name], candidate[name])}, not compared")
    return errors, notes


def comparable(tensor: Tensor) -> Tensor:
    """The values as float32 holds them, in float64 so that sums and squares lose nothing."""
    return tensor.detach().cpu().float().double()


def _decibels(numerator: float, denominator: float) -> float | None:
    if numerator <= 0 or denominator <= 0:
        return None
    return 10 * (math.log10(numerator) - math.log10(denominator))


def _cosine(reference: Tensor, candidate: Tensor) -> float | None:
    norms = float(reference.norm() * candidate.norm())
    if norms == 0:
        return None
    return max(-1.0, min(1.0, float(reference @ candidate) / norms))


def _mean_ssim(reference: Tensor, candidate: Tensor, peak: float) -> float | None:
    """Mean over frames; a last dimension of 1 or 3 holds channels, since a map that narrow has no SSIM anyway."""
    has_channels = reference.ndim > 2 and reference.shape[-1] in (1, 3)
    frame_ndim = 3 if has_channels else 2
    if reference.ndim < frame_ndim or min(reference.shape[-frame_ndim:][:2]) < SSIM_WINDOW or peak == 0:
        return None
    # SSIM does not change when both maps and the range are scaled alike; at 1 its squares neither under- nor overflow.
    frames = [(t / peak).reshape(-1, *t.shape[-frame_ndim:]).numpy() for t in (reference, candidate)]
    values = [_ssim(a, b, channel_axis=-1 if has_channels else None) for a, b in zip(*frames, strict=True)]
    return finite(float(np.mean(values)))


def _ssim(frame: np.ndarray, other: np.ndarray, *, channel_axis: int | None) -> float:
    settings = {"win_size": SSIM_WINDOW, "data_range": 1.0, "channel_axis": channel_axis}
    return float(structural_similarity(frame, other, **settings))  # type: ignore[no-untyped-call]  # has no types


def _describe(reference: Any, candidate: Any) -> str:
    kinds = ["a tensor" if isinstance(v, Tensor) else f"a {type(v).__name__}" for v in (reference, candidate)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} in the reference, {kinds[1]} in the variant"
    if isinstance(reference, list | tuple):
        tensors = sum(isinstance(item, Tensor) for item in reference)
        return f"{kinds[0]} of {len(reference)} items, {tensors} of them tensors"
    return f"of type {type(reference).__name__}, no tensor"
