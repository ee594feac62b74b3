"""Seeded random weights that let an untrained VGGT run like a trained one: finite, sane, and looking at its images.

Idea: each tensor is a function of (seed, name, shape) alone, so it is the same on every machine, in every order of
loading and with every number of threads. The normal numbers are therefore made from integers: the sum of four
uniform 16-bit numbers (Irwin-Hall) taken from PCG64, whose stream NumPy guarantees, then one odd cubic that restores
the variance and kurtosis of the normal distribution. No logarithm or cosine is involved, whose last bit depends on
the processor; the largest value is 4.04 standard deviations.

Scales: linear and convolution weights N(0, 1 / fan_in), LayerScale about 0.3 so that deep stacks stay bounded, and
small last layers so that depth stays near 1, the four camera iterations add up to a quaternion with w near 1 and a
field of view near 1 radian, and every output is finite in bfloat16 too.

Such weights are for tests, timing and memory; no accuracy can be read from them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vggt_quant.model.config import VGGTConfig

SCHEME = 1
"""Version of the recipe below; a change of any number it makes must raise it."""

CHUNK = 1 << 16
"""Values made at a time, so that all steps stay in the processor's cache."""

CUBIC = (0.9490330782957842, 0.018642382500609362)
"""a, b of z = x (a + b x^2): variance 1 and kurtosis 3 for the standardised sum of four uniforms."""

GAINS = {
    "pose_branch.fc2.weight": 0.07,
    "output_conv2.2.weight": 0.3,
    "flow_head.weight": 0.1,
    "vis_predictor.0.weight": 0.3,
    "conf_predictor.0.weight": 0.3,
}
"""Factors on the last layers, which are followed by exp, by expm1 or by a sum over iterations."""

TOKEN_STDS = {"pos_embed": 0.2, "empty_pose_tokens": 0.1}
"""Standard deviations of the parameters that are no weights; the others (camera, register, ... tokens) have 0.5."""

TRANSPOSED = ("resize_layers.0.weight", "resize_layers.1.weight")
"""Transposed convolutions, stored [in, out, k, k]; stride equals kernel, so an output sees one tap of each input."""

CAMERA_ITERATIONS = 4
POSE_TARGET = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
"""Where the camera's bias leads: translation, quaternion xyzw, field of view (height, width) in radians."""


def random_state(shapes: Mapping[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """Return float32 CPU tensors of the given names and shapes, made on all cores at once (NumPy releases the GIL)."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        made = pool.map(lambda item: random_tensor(item[0], item[1], seed), shapes.items())
        return dict(zip(shapes, made, strict=True))


def random_tensor(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Return the float32 CPU tensor that the state-dict entry `name` of this shape has under `seed`."""
    mean, std = _mean_and_std(name, shape)
    tensor = torch.from_numpy(_normal(math.prod(shape), mean, std, seed, name)).reshape(shape)
    if name.endswith("pose_branch.fc2.bias"):
        tensor += torch.tensor(POSE_TARGET, dtype=torch.float32) / CAMERA_ITERATIONS
    return tensor


def random_sha256(config: VGGTConfig, seed: int) -> str:
    """Return 64 hex digits that name these weights: they change with the sizes, the seed and the recipe."""
    identity = {"scheme": SCHEME, "seed": seed, "config": config.to_dict()}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _mean_and_std(name: str, shape: torch.Size) -> tuple[float, float]:
    leaf = name.rpartition(".")[2]
    if leaf == "gamma":
        return 0.3, 0.03
    if leaf == "weight" and len(shape) == 1:
        return 1.0, 0.1
    if leaf.endswith("bias"):
        return 0.0, 0.02
    if leaf.endswith("weight"):
        fan_in = shape[0] if name.endswith(TRANSPOSED) else math.prod(shape[1:])
        return 0.0, _by_suffix(GAINS, name, 1.0) / math.sqrt(fan_in)
    return 0.0, _by_suffix(TOKEN_STDS, name, 0.5)


def _by_suffix(table: Mapping[str, float], name: str, default: float) -> float:
    return next((value for suffix, value in table.items() if name.endswith(suffix)), default)


def _normal(count: int, mean: float, std: float, seed: int, name: str) -> np.ndarray:
    digest = hashlib.sha256(f"{SCHEME}:{seed}:{name}".encode()).digest()
    stream = np.random.PCG64(int.from_bytes(digest[:16], "little"))
    values = np.empty(count, dtype=np.float32)
    for start in range(0, count, CHUNK):
        chunk = _standard_normal(stream.random_raw(min(CHUNK, count - start)))
        chunk *= np.float32(std)
        chunk += np.float32(mean)
        values[start : start + CHUNK] = chunk
    return values


def _standard_normal(raw: np.ndarray) -> np.ndarray:
    """Map 64-bit integers [n] to float32 values [n] of mean 0 and standard deviation 1."""
    quarters = raw.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
    total = quarters[:, 0].astype(np.float32)
    for column in range(1, 4):
        total += quarters[:, column]  # sums of integers below 2^18: exact in float32
    total -= np.float32(2 * 65535)
    total /= np.float32(math.sqrt((65536**2 - 1) / 3))
    a, b = np.float32(CUBIC[0]), np.float32(CUBIC[1])
    return total * (total * total * b + a)
