"""How far a quantized model's outputs are from the original's: pure functions of tensors.

Every comparison is made on detached CPU copies rounded to float32 and summed in float64, so the device and the
compute dtype of a variant change its values but never the yardstick. What a number cannot say (an infinite ratio, a
map smaller than the SSIM window, a frame without a translation) is None, and what spoils a comparison (NaN, another
shape) is a sentence in `error`: nothing here raises because a variant went wrong.

Both sides are the same model, so no alignment is done: a shift of the whole scene is an error like any other.
SSIM: Wang et al. 2004, uniform 7x7 window as in scikit-image. Depth: AbsRel and delta < 1.25, Eigen et al. 2014.
"""

import math
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from vggt_quant.data.geometry import direction_angle, quaternion_to_matrix, rotation_angle

DENSE_MAPS = ("depth", "depth_conf", "world_points", "world_points_conf")
"""Outputs with one value or vector a pixel, [B, S, H, W] or [B, S, H, W, C]: those that have an SSIM."""
INPUT_ECHO = "images"
"""VGGT returns its input beside the outputs; comparing it would flatter every variant."""
SSIM_WINDOW = 7
SMALLEST_TRANSLATION = 1e-2
"""Shorter reference translations have no direction worth comparing; VGGT's unit is the scene's mean distance."""


def tensor_error(reference: Tensor, candidate: Tensor, *, is_map: bool) -> dict[str, Any]:
    """Compare one output tensor with its reference.

    Args:
        reference: The fp32 output, any shape.
        candidate: The variant's output; another shape, a NaN or an infinity gives a row with `error`.
        is_map: The tensor is [..., frames, H, W] or [..., frames, H, W, C] with C = 1 or 3; SSIM is computed.

    Returns:
        The fields of `scene_schema.TensorError`: MAE, MSE, largest error, PSNR (dB; its peak is the largest minus the
        smallest reference value), SSIM, cosine, SQNR (dB).
    """
    row = {"shape": list(candidate.shape), "dtype": str(candidate.dtype).removeprefix("torch.")}
    if reference.shape != candidate.shape:
        error = f"its shape is {list(candidate.shape)}, but the reference's is {list(reference.shape)}"
        return {**row, "error": error}
    if reference.numel() == 0:
        return {**row, "error": "it has no values"}
    reference, candidate = _comparable(reference), _comparable(candidate)
    for name, tensor in (("it", candidate), ("the reference", reference)):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            return {**row, "error": f"{bad} of {tensor.numel()} values of {name} are not finite (NaN or infinity)"}
    peak = float(reference.max() - reference.min())
    ssim = _mean_ssim(reference, candidate, peak) if is_map else None
    return {**row, **_deviations(reference, candidate, peak), "ssim": ssim}


def output_errors(reference: dict[str, Any], candidate: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Compare two output dictionaries of VGGT, tensor by tensor.

    Returns:
        The `tensor_error` of each output that is a tensor on both sides, and notes on every other entry.
    """
    errors, notes = {}, []
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


def camera_errors(reference_pose_enc: Tensor, candidate_pose_enc: Tensor) -> dict[str, float | None]:
    """Angles between predicted cameras and the reference's, in degrees, over all frames.

    Args:
        reference_pose_enc: [..., S, 9]: world-to-camera translation, quaternion (x, y, z, w), vertical and
            horizontal field of view in radians.
        candidate_pose_enc: The same shape.

    Returns:
        Rotation and translation-direction errors (mean, max) and the mean field-of-view error. All None when a pose
        is not finite or the shapes differ: a mean over the frames that survived would flatter the variant.
    """
    keys = ("rotation_error_deg_mean", "rotation_error_deg_max", "translation_angle_deg_mean")
    keys += ("translation_angle_deg_max", "fov_error_deg_mean")
    if reference_pose_enc.shape != candidate_pose_enc.shape or reference_pose_enc.numel() == 0:
        return dict.fromkeys(keys)
    assert reference_pose_enc.shape[-1] == 9
    reference, candidate = (_comparable(p).reshape(-1, 9) for p in (reference_pose_enc, candidate_pose_enc))
    if not (torch.isfinite(reference).all() and torch.isfinite(candidate).all()):
        return dict.fromkeys(keys)
    rotation = rotation_angle(quaternion_to_matrix(reference[:, 3:7]), quaternion_to_matrix(candidate[:, 3:7]))
    has_direction = reference[:, :3].norm(dim=-1) > SMALLEST_TRANSLATION
    translation = _translation_angles(reference[has_direction, :3], candidate[has_direction, :3])
    fov = (reference[:, 7:] - candidate[:, 7:]).abs()
    return dict(zip(keys, (*_mean_and_max(rotation), *_mean_and_max(translation), _mean_and_max(fov)[0]), strict=True))


def depth_errors(reference: Tensor, candidate: Tensor) -> dict[str, float | None]:
    """AbsRel = mean |d - d*| / d*, and the share with max(d / d*, d* / d) < 1.25, where d* is finite and positive.

    Both None when the shapes differ, no pixel is valid, or the variant's depth is not finite at a valid pixel.
    """
    nothing = {"depth_abs_rel": None, "depth_delta_125": None}
    if reference.shape != candidate.shape:
        return nothing
    reference, candidate = _comparable(reference), _comparable(candidate)
    valid = torch.isfinite(reference) & (reference > 0)
    reference, candidate = reference[valid], candidate[valid]
    if reference.numel() == 0 or not torch.isfinite(candidate).all():
        return nothing
    # Written without a division by the candidate: a depth of zero or below counts as a miss.
    within = (candidate < 1.25 * reference) & (reference < 1.25 * candidate)
    abs_rel = ((candidate - reference).abs() / reference).mean()
    return {"depth_abs_rel": _finite(abs_rel), "depth_delta_125": float(within.double().mean())}


def _comparable(tensor: Tensor) -> Tensor:
    """The values as float32 holds them, in float64 so that sums and squares lose nothing."""
    return tensor.detach().cpu().float().double()


def _finite(value: Tensor | float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _decibels(numerator: float, denominator: float) -> float | None:
    if numerator <= 0 or denominator <= 0:
        return None
    return 10 * (math.log10(numerator) - math.log10(denominator))


def _deviations(reference: Tensor, candidate: Tensor, peak: float) -> dict[str, Any]:
    difference = candidate - reference
    mse = float(difference.square().mean())
    return {
        "mae": float(difference.abs().mean()),
        "mse": mse,
        "max_abs": float(difference.abs().max()),
        "psnr_db": _decibels(peak**2, mse),
        "psnr_peak": peak,
        "cosine": _cosine(reference.flatten(), candidate.flatten()),
        "sqnr_db": _decibels(float(reference.square().mean()), mse),
        "identical": torch.equal(reference, candidate),
    }


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
    axis = -1 if has_channels else None
    values = [
        structural_similarity(a, b, win_size=SSIM_WINDOW, data_range=1.0, channel_axis=axis)
        for a, b in zip(*frames, strict=True)
    ]
    return _finite(float(np.mean(values)))


def _translation_angles(reference: Tensor, candidate: Tensor) -> Tensor:
    """Angles between vectors [N, 3] in radians; NaN, not 0, where the candidate is zero and has no direction."""
    angles = direction_angle(reference, candidate)
    return torch.where(candidate.norm(dim=-1) > 0, angles, torch.nan)


def _mean_and_max(radians: Tensor) -> tuple[float | None, float | None]:
    if radians.numel() == 0:
        return None, None
    degrees = torch.rad2deg(radians)
    return _finite(degrees.mean()), _finite(degrees.max())


def _describe(reference: Any, candidate: Any) -> str:
    kinds = ["a tensor" if isinstance(v, Tensor) else f"a {type(v).__name__}" for v in (reference, candidate)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} in the reference, {kinds[1]} in the variant"
    if isinstance(reference, list | tuple):
        tensors = sum(isinstance(item, Tensor) for item in reference)
        return f"{kinds[0]} of {len(reference)} items, {tensors} of them tensors"
    return f"of type {type(reference).__name__}, no tensor"
