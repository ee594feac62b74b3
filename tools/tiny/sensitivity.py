"""Does quantization affect the small model? Round to nearest from 8 to 2 bits, compared with the ground truth.

    python tools/tiny/sensitivity.py [MODEL ...] [--layers PATTERN] [--rooms N] [--out FILE]

MODEL: tiny and tiny-outliers by default. PATTERN: round only layers of such names, "camera_head*" or "!camera_head*".

Only weights are rounded, in every layer that the package's policy quantizes, and stored as float32. This is simulated,
because the package packs 8 and 4 bits only. For those two the packed variants give the same numbers up to bfloat16's
rounding.
"""

from __future__ import annotations

import argparse
import copy
import json
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from evaluate import predict, rows, scenes, summarise
from torch import nn

import vggt_quant
from vggt_quant.quantization import grid as grids
from vggt_quant.quantization.policy import select
from vggt_quant.results.intervals import is_within_noise, paired_difference
from vggt_quant.variants import Policy

SETTINGS = ((8, None), (6, None), (4, None), (4, 128), (4, 64), (3, 128), (3, 64), (2, 128), (2, 64))
"""Bits, columns of a group (None: one scale a row)."""
SHOWN = (
    *("pose_auc_30", "pose_auc_15", "pose_auc_5", "pose_auc_3", "rotation_error_deg_median"),
    *("direction_error_deg_median", "depth_abs_rel", "depth_delta_125", "point_error_of_scene_size"),
    *("cloud_overall_mean", "cloud_normal_consistency_mean"),
)


@torch.no_grad()
def round_weights(model: nn.Module, bits: int, group_size: int | None, layers: str = "*") -> nn.Module:
    """A copy whose quantizable weights lie on the grid, those of matching names; a pattern after ! must not match."""
    rounded = copy.deepcopy(model)
    wanted = layers.removeprefix("!")
    for name in select(rounded, Policy()).quantized:
        if fnmatchcase(name, wanted) == layers.startswith("!"):
            continue
        weight = rounded.get_submodule(name).weight
        grid = grids.fit(weight, bits=bits, group_size=group_size)
        weight.copy_(grids.to_weights(grids.to_integers(weight, grid), grid))
    return rounded


def compare(model: nn.Module, name: str, *, layers: str, num_rooms: int | None) -> dict[str, dict]:
    """The figures of each setting, and the paired difference to float32 with its interval."""
    photos, truths = (part[:num_rooms] for part in scenes())
    exact = rows(predict(model, photos), truths)
    table = {"fp32": {"figures": summarise(exact)}}
    for bits, group_size in SETTINGS:
        rounded = rows(predict(round_weights(model, bits, group_size, layers), photos), truths)
        label = f"int{bits} " + ("per row" if group_size is None else f"groups of {group_size}")
        table[label] = {"figures": summarise(rounded), "differences": _differences(rounded, exact)}
        print(f"{name}, {label}: {_line(table[label])}", flush=True)
    return table


def _differences(rounded: list[dict], exact: list[dict]) -> dict[str, dict[str, float | bool]]:
    found = {}
    for figure in SHOWN:
        difference = paired_difference([row[figure] for row in rounded], [row[figure] for row in exact])
        if difference is not None:
            mean, low, high = difference
            found[figure] = {"mean": mean, "low": low, "high": high, "within_noise": is_within_noise((low, high))}
    return found


def _line(entry: dict) -> str:
    parts = []
    for figure in SHOWN:
        value, difference = entry["figures"].get(figure), entry["differences"].get(figure)
        if value and difference:
            parts.append(f"{figure} {value['mean']:.4f}{'~' if difference['within_noise'] else ''}")
    return ", ".join(parts)


def main() -> None:
    """Print a line a setting (~: the difference to float32 is within the noise), and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny", "tiny-outliers"])
    parser.add_argument("--layers", default="*")
    parser.add_argument("--rooms", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report = {
        name: compare(vggt_quant.load(name), name, layers=args.layers, num_rooms=args.rooms) for name in args.models
    }
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
