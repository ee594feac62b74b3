"""The 120 held-out rooms that judge the small model: their parameters, frozen in a file before any training.

    python tools/tiny/held_out.py make      # writes held_out.safetensors (once; the hash below then changes)
    python tools/tiny/held_out.py describe  # how hard they are: overlap, baseline, rotation, spread of depth

The file holds the rooms and cameras, not a seed, so that changes of the generator, of torch's random numbers or of a
processor's last bits cannot make them easier. Training draws its rooms from other seeds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, fields
from itertools import permutations
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vggt_quant.data.geometry import rotation_angle
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms, render
from vggt_quant.data.synthetic.rooms import Draw, sample

FILE = Path(__file__).with_name("held_out.safetensors")
SHA256 = "a3f6848e0322400563114db867f6c80ec0834686696b3096bbc2efa0fdac215d"
NUM_ROOMS, NUM_VIEWS, SIZE, SEED = 120, 4, 112, 20_261_125
SAME_DEPTH = 0.05
"""Two depths of one ray that differ by less than this share are the same surface."""


def make() -> None:
    """Draw the rooms and write them."""
    rooms, cameras = sample(NUM_ROOMS, NUM_VIEWS, Draw(SEED), height=SIZE, width=SIZE)
    save_file({name: t.contiguous() for name, t in (asdict(rooms) | asdict(cameras)).items()}, FILE)
    print(f"SHA256 = {hashlib.sha256(FILE.read_bytes()).hexdigest()!r}")


def load(device: str = "cpu") -> tuple[Rooms, Cameras]:
    """The held-out rooms and their cameras.

    Raises:
        ValueError: the file is not the frozen one.
    """
    found = hashlib.sha256(FILE.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{FILE} has the hash {found}, not {SHA256}: the held-out rooms must not change.")
    tensors = load_file(FILE, device=str(device))
    return (cls(**{field.name: tensors[field.name] for field in fields(cls)}) for cls in (Rooms, Cameras))


def photograph(rooms: Rooms, cameras: Cameras, *, at_a_time: int = 20) -> dict[str, Tensor]:
    """Render all views, rgb rounded to 8 bits as in a file."""
    parts = [
        render(part(rooms, start, at_a_time), part(cameras, start, at_a_time), SIZE, SIZE)
        for start in range(0, len(rooms.corners), at_a_time)
    ]
    views = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return views | {"rgb": (views["rgb"] * 255).round() / 255}


def part(batch: Rooms | Cameras, start: int, count: int) -> Rooms | Cameras:
    """`count` rooms, or their cameras, from number `start` on."""
    return type(batch)(**{field.name: getattr(batch, field.name)[start : start + count] for field in fields(batch)})


def visible_share(views: dict[str, Tensor], cameras: Cameras, i: int, j: int) -> Tensor:
    """Share [B] of view i's pixels whose surface view j also sees."""
    extrinsics, intrinsics = cameras.extrinsics[:, j, None, None], cameras.intrinsics[:, j, None, None]
    in_camera = (extrinsics[..., :3] * views["world_points"][:, i, :, :, None]).sum(-1) + extrinsics[..., 3]
    uv = ((intrinsics * in_camera[..., None, :]).sum(-1)[..., :2] / in_camera[..., 2:]).round().long()
    is_inside = ((uv >= 0) & (uv < SIZE)).all(-1) & (in_camera[..., 2] > 0)
    index = (uv.clamp(0, SIZE - 1) * torch.tensor([1, SIZE], device=uv.device)).sum(-1)
    there = views["depth"][:, j].flatten(1).gather(1, index.flatten(1)).view_as(in_camera[..., 2])
    is_same = (there - in_camera[..., 2]).abs() < SAME_DEPTH * in_camera[..., 2]
    return (is_inside & is_same).float().mean(dim=(1, 2))


def describe() -> dict[str, float | list[float]]:
    """How hard the rooms are."""
    rooms, cameras = load()
    views = photograph(rooms, cameras)
    positions, rotations = cameras.positions, cameras.extrinsics[..., :3]
    scale = (views["world_points"] - positions[:, :1, None, None]).norm(dim=-1).mean(dim=(1, 2, 3))
    pairs = list(permutations(range(NUM_VIEWS), 2))
    share = torch.stack([visible_share(views, cameras, i, j) for i, j in pairs])
    angle = torch.stack([rotation_angle(rotations[:, i], rotations[:, j]) for i, j in pairs]).rad2deg()
    baseline = torch.stack([(positions[:, i] - positions[:, j]).norm(dim=-1) / scale for i, j in pairs])
    median = views["depth"].flatten(1).median(dim=1).values[:, None, None, None]
    constant = ((median - views["depth"]).abs() / views["depth"]).mean()
    return {
        "visible_share_mean": float(share.mean()),
        "visible_share_quartiles": share.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist(),
        "rotation_deg_mean": float(angle.mean()),
        "rotation_deg_max": float(angle.max()),
        "baseline_mean": float(baseline.mean()),
        "baseline_quartiles": baseline.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist(),
        "constant_depth_abs_rel": float(constant),
        "objects_mean": float(rooms.is_present.sum(dim=1).float().mean()),
        "fov_deg_range": [
            float(f((2 * torch.atan(SIZE / 2 / cameras.intrinsics[..., 0, 0])).rad2deg()))
            for f in (torch.min, torch.max)
        ],
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make()
    elif sys.argv[1:] == ["describe"]:
        print(json.dumps(describe(), indent=1))
    else:
        sys.exit(__doc__)
