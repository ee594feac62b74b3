"""The state of a training run: progress, and bfloat16 weights in two shards of under 16 MiB as the hub stores them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SHARD_BYTES = 15.9 * 2**20
INDEX = "model.safetensors.index.json"


def write_state(model: nn.Module, progress: dict[str, Any], folder: Path) -> None:
    """Write weights and progress into a new folder, which then replaces the last one."""
    target, folder = folder, folder.with_name(f"{folder.name}.incomplete")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        if sum(t.numel() for t in shards[-1].values()) * 2 + stored.numel() * 2 > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = stored
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for shard, name in zip(shards, names, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    owner = {tensor: name for shard, name in zip(shards, names, strict=True) for tensor in shard}
    total = sum(t.numel() * 2 for shard in shards for t in shard.values())
    _write_json({"metadata": {"total_size": total}, "weight_map": owner}, folder / INDEX)
    _write_json(progress, folder / "progress.json")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(folder, target)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights in float32, and progress."""
    names = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    weights = {key: t.float() for name in sorted(names) for key, t in load_file(folder / name).items()}
    return weights, json.loads((folder / "progress.json").read_text())


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
