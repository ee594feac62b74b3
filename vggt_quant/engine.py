"""A checkpoint made ready to run: on its device, in its types, with the kernels that the machine has.

What runs is decided by visible rules and can be read off `Engine.kernels`. float32 means float32: TF32 is off for
matrix products and convolutions, because the fp32 reference must not be an approximation itself. On CUDA it also goes
without cuDNN: for the dense heads' float32 convolutions cuDNN picks an FFT of 165,120 small products, 2.1 s and 41 GB a
head where PyTorch's own matrix-product convolution takes 0.04 s and 7 GB (H100, 5 images of 350x518).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vggt_quant import formats
from vggt_quant.checkpoint import load_packed, read_manifest
from vggt_quant.model import VGGT


class UnsupportedError(ValueError):
    """This machine cannot run the checkpoint; a result with a reason, not a failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A model ready to run."""

    model: VGGT
    device: torch.device
    kernels: dict[str, str]
    """Format -> kernel; `dense` is what was not quantized."""
    compute_dtype: str

    def run(self, images: Tensor) -> dict:
        """VGGT's dictionary for images [S, 3, H, W] in [0, 1], on the engine's device."""
        cudnn = torch.backends.cudnn.flags(enabled=self.compute_dtype != "float32", allow_tf32=False)
        with torch.inference_mode(), cudnn:
            return self.model(images.to(self.device))

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def open_checkpoint(path: Path | str, device: str) -> Engine:
    """Load a packed checkpoint and make it ready.

    Raises:
        UnsupportedError: One of its formats has no kernel on this device.
        CheckpointError: The file is damaged or foreign.
    """
    layers = read_manifest(path)["layers"]
    used = sorted({fields["format"] for fields in layers.values()})
    for name in used:
        devices = device_kinds(name)
        if device not in devices:
            raise UnsupportedError(f"{name} runs on {', '.join(devices)} only, not on {device}.")
    return ready(load_packed(path, device=device), device)


def device_kinds(format_name: str) -> tuple[str, ...]:
    """The kinds of device that a format has a kernel for."""
    return getattr(formats.get(format_name).PackedLinear, "devices", ("cpu", "cuda"))


def run_device(path: Path | str, device: str) -> str:
    """Where a checkpoint is measured in a run on `device`: there, unless one of its formats exists on the CPU only."""
    used = {fields["format"] for fields in read_manifest(path)["layers"].values()}
    return device if all(device in device_kinds(name) for name in used) else "cpu"


def ready(model: VGGT, device: str) -> Engine:
    """Wrap a loaded model."""
    torch.backends.cuda.matmul.allow_tf32 = False
    place = torch.device(device)
    dtype = str(model.aggregator.camera_token.dtype).removeprefix("torch.")
    used = {layer.format: layer for layer in formats.packed_layers(model).values()}
    kernels = {name: layer.kernel(place) for name, layer in used.items()}
    kernels["dense"] = f"torch {dtype}" + (" (no TF32, no cuDNN)" if device == "cuda" and dtype == "float32" else "")
    return Engine(model=model, device=place, kernels=kernels, compute_dtype=dtype)
