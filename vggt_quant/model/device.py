"""Resolve the name of a device: auto, cpu, cuda."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """`auto` becomes the GPU where PyTorch has one, else the CPU.

    Raises:
        ValueError: A name that PyTorch does not know, or a GPU where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device is {device!r}, which PyTorch does not know; use "auto", "cpu" or "cuda".') from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device is {device}, but PyTorch finds no GPU here; use "auto" or "cpu".')
    return target
