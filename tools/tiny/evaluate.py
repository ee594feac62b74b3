"""The figures of the small model that are quoted: 120 held-out rooms, the package's own metrics, float32 on the CPU.

    python tools/tiny/evaluate.py [MODEL] [--out FILE]     # MODEL: as vggt_quant.load takes it (default: tiny)

The output also has controls, which any model could reach: the poses of another room, and one depth everywhere.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from held_out import SHA256, load, photograph
from torch import Tensor, nn

import vggt_quant
from vggt_quant.data.geometry import pose_to_cameras
from vggt_quant.evaluation import metrics
from vggt_quant.evaluation.metrics.cameras import pose_accuracy
from vggt_quant.model.weights.pretrained import resolve, weights_sha256
from vggt_quant.results.intervals import bootstrap_interval

TARGETS = {
    "pose_auc_30": "at least 0.75",
    "depth_abs_rel": "at most 0.08",
    "depth_delta_125": "at least 0.93",
    "point_error_of_scene_size": "at most 0.08",
}


def scenes() -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Photos [120, 4, 3, H, W], and the truth of each room as `scenes.Truth` has it."""
    rooms, cameras = load()
    views = photograph(rooms, cameras)
    truths = [
        {
            "extrinsics": cameras.extrinsics[i].double(),
            "intrinsics": cameras.intrinsics[i].double(),
            "depths": views["depth"][i],
        }
        for i in range(len(views["rgb"]))
    ]
    return views["rgb"], truths


@torch.inference_mode()
def predict(model: nn.Module, photos: Tensor) -> list[dict[str, Tensor]]:
    """The outputs of every room."""
    return [model(images) for images in photos]


def rows(outputs: list[dict[str, Tensor]], truths: list[dict[str, Tensor]]) -> list[dict[str, float | None]]:
    """All ground-truth figures of every room."""
    return [metrics.measure("truth", output, truth) for output, truth in zip(outputs, truths, strict=True)]


def summarise(per_scene: list[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval over rooms of every figure that all of them have."""
    table = {}
    for name in per_scene[0]:
        values = [row[name] for row in per_scene]
        if all(isinstance(value, float) for value in values):
            low, high = bootstrap_interval(values)
            table[name] = {"mean": sum(values) / len(values), "low": low, "high": high}
    return table


def shuffled_pose_auc(outputs: list[dict[str, Tensor]], truths: list[dict[str, Tensor]]) -> float:
    """AUC@30 of every room's poses against the next room's truth."""
    poses = [pose_to_cameras(output["pose_enc"][0].double(), (1, 1))[0] for output in outputs]
    shifted = truths[1:] + truths[:1]
    values = [pose_accuracy(p, t["extrinsics"])["pose_auc_30"] for p, t in zip(poses, shifted, strict=True)]
    return sum(values) / len(values)


def main() -> None:
    """Print the figures, and write them with every room's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    photos, truths = scenes()
    outputs = predict(vggt_quant.load(args.model), photos)
    per_scene = rows(outputs, truths)
    table, shuffled = summarise(per_scene), shuffled_pose_auc(outputs, truths)
    for name, figure in table.items():
        target = f"   target: {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:36s} {figure['mean']:9.4f}  [{figure['low']:.4f}, {figure['high']:.4f}]{target}")
    print(f"control: poses of another room, pose_auc_30 {shuffled:.4f}")
    if args.out:
        hashes = {"weights_sha256": weights_sha256(resolve(args.model)), "held_out_sha256": SHA256}
        report = {**hashes, "torch": torch.__version__, "figures": table, "control_shuffled_pose_auc_30": shuffled}
        args.out.write_text(json.dumps(report | {"scenes": per_scene}, indent=1) + "\n")


if __name__ == "__main__":
    main()
