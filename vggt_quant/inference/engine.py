"""The engine: a checkpoint on its device, in its dtypes, with the kernels that the machine has.

`Engine.kernels` says what runs. A bfloat16 model on CUDA runs on the kernels of `fast`. Everything else runs on the
model's own modules.

float32 means float32: TF32 is off for matrix products and convolutions, because the fp32 reference must not be an
approximation. On CUDA cuDNN is off, too. For the dense heads' float32 convolutions it picks an FFT of 165,120 small
products, which takes 2.1 s and 41 GB a head; PyTorch's matrix-product convolution takes 0.04 s and 7 GB (H100, 5 images
of 350x518). A variant's `run` settings may choose other arithmetic: `tf32`, or `autocast` as VGGT is published.
Autocast keeps PyTorch's defaults for the rest: float32 convolutions in TF32 through cuDNN, float32 products exact.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vggt_quant.inference.plan import Plan
from vggt_quant.model import VGGT
from vggt_quant.model.device import pick_device
from vggt_quant.model.layers import Block
from vggt_quant.quantization import formats
from vggt_quant.quantization.checkpoint import load_packed, read_manifest
from vggt_quant.quantization.formats.base import has_triton, packed_layers
from vggt_quant.variants import DEFAULT, RunSettings


class UnsupportedError(ValueError):
    """This machine cannot run the checkpoint; a result with a reason, not a failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A model ready to run, with the weights that it has now: the fast pass keeps what it makes of them."""

    model: VGGT
    device: torch.device
    kernels: dict[str, str]
    """Format -> kernel; `dense` is what was not quantized."""
    compute_dtype: str
    settings: RunSettings = DEFAULT
    forward: Callable[[Tensor], dict[str, Any]] | None = None
    """The fast pass, where there is one."""

    def run(self, images: Tensor) -> dict[str, Any]:
        """VGGT's dictionary for images [S, 3, H, W] in [0, 1], on the engine's device."""
        with torch.inference_mode():
            return self.call(images)

    def call(self, images: Tensor) -> dict[str, Any]:
        """The same in the caller's gradient mode."""
        with self.arithmetic():
            forward = self.forward if self.forward and images.ndim == 4 else self.model
            return forward(images.to(self.device))

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """PyTorch's switches as the settings want them, and as they were before once the block ends."""
        settings, matmul = self.settings, torch.backends.cuda.matmul
        has_tf32_convolutions = settings.tf32 or settings.autocast is not None
        cudnn = torch.backends.cudnn.flags(
            enabled=self.compute_dtype != "float32" or has_tf32_convolutions, allow_tf32=has_tf32_convolutions
        )
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=settings.autocast is not None)
        before, matmul.allow_tf32 = matmul.allow_tf32, settings.tf32
        try:
            with cudnn, autocast:
                yield
        finally:
            matmul.allow_tf32 = before

    def plan(self, num_images: int, tokens: int) -> Plan:
        """Which arithmetic each layer is multiplied in, for a number of images of `tokens` tokens each."""
        return Plan(
            settings=self.settings,
            packed=packed_layers(self.model),
            compute_dtype=self.compute_dtype,
            device=self.device.type,
            is_fast=self.forward is not None,
            num_images=num_images,
            tokens=tokens,
        )

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def open_checkpoint(path: Path | str, device: str, run: RunSettings = DEFAULT) -> Engine:
    """Load a packed checkpoint and make it ready.

    Raises:
        UnsupportedError: One of its formats has no kernel on this device, or the settings cannot be run there.
        CheckpointError: The file is damaged or foreign.
        ValueError: `device` is neither cpu nor cuda.
    """
    device = _check_device(device)
    if device not in run.devices:
        raise UnsupportedError(f"{run.cuda_only} runs on {', '.join(run.devices)} only, not on {device}.")
    layers = read_manifest(path)["layers"]
    used = sorted({fields["format"] for fields in layers.values()})
    for name in used:
        devices = device_kinds(name)
        if device not in devices:
            raise UnsupportedError(f"{name} runs on {', '.join(devices)} only, not on {device}.")
        reason = unsupported(name, torch.device(device))
        if reason:
            raise UnsupportedError(f"{reason}.")
    return ready(load_packed(path, device=device), device, run, owns_weights=True)


def device_kinds(format_name: str) -> tuple[str, ...]:
    """The device types for which a format has a kernel."""
    return formats.spec(format_name).devices


def unsupported(format_name: str, device: torch.device) -> str | None:
    """Why a device of a supported type cannot run a format, or None."""
    return formats.layer(format_name).unsupported(device)


def run_device(path: Path | str, device: str) -> str:
    """Where a checkpoint is measured in a run on `device`: there, unless one of its formats exists on the CPU only."""
    device = _check_device(device)
    used = {fields["format"] for fields in read_manifest(path)["layers"].values()}
    return device if all(device in device_kinds(name) for name in used) else "cpu"


def moved_note(target: str, device: str) -> str | None:
    """The remark of a row that was measured on another device type (`run_device`) than requested."""
    return None if target == device else f"measured on the {target.upper()}: it has no {device.upper()} kernel"


def ready(model: VGGT, device: str, run: RunSettings = DEFAULT, *, owns_weights: bool = False) -> Engine:
    """Wrap a loaded model, which stays as it is.

    Args:
        model: On that device.
        device: "cpu", "cuda" or "auto".
        run: How to run it.
        owns_weights: Whether the fast pass may change the memory layout of the dense heads' weights, which saves it a
            copy of them.

    Raises:
        UnsupportedError: The machine cannot run these settings.
        ValueError: `device` is none of these.
    """
    device = _check_device(device)
    target = torch.device(device)
    dtype = str(model.aggregator.camera_token.dtype).removeprefix("torch.")
    used = {layer.format: layer for layer in packed_layers(model).values()}
    kernels = {name: layer.kernel(target) for name, layer in used.items()}
    kernels["dense"] = f"torch {dtype}{_remark(dtype, device, run)}"
    engine = Engine(model=model, device=target, kernels=kernels, compute_dtype=dtype, settings=run)
    if run.compile:
        return _compiled(engine)
    is_fast = device == "cuda" and run.engine == "fast" and dtype == "bfloat16"
    return _fast(engine, owns_weights) if is_fast else engine


def _check_device(device: str) -> str:
    # Another GPU than the current one would get the kernels' launches on the wrong device.
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose auto, cpu or cuda, and which GPU by CUDA_VISIBLE_DEVICES.")
    return pick_device("auto").type if device == "auto" else device


class CompiledBlock(nn.Module):
    """A block that runs through a function for all blocks, with their weights."""

    def __init__(self, block: Block, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.block, self.run = block, run

    def forward(self, x_BND: Tensor, rotary_2PE: Tensor | None = None) -> Tensor:
        """As `Block.forward`."""
        return self.run(self.block, x_BND, rotary_2PE)


def compiled(model: VGGT, backend: str | Callable[..., Any] = "inductor") -> Callable[[Tensor], dict[str, Any]]:
    """The model's forward pass, every block of the transformer through one compiled function that takes the block.

    Blocks of a kind then share its code: three compilations (image, frame and global blocks) for each number of images.
    Compiled one by one, each of the 72 blocks would add its own code to those that every call has to look through. The
    model itself stays as it is.
    """
    # torchao's own setting: scales are multiplied inside its integer product.
    options: dict[str, Any] | None = {"force_fuse_int_mm_with_mul": True} if backend == "inductor" else None
    forward = torch.compile(Block.forward, backend=backend, dynamic=False, options=options)
    twin = _with_blocks(model, lambda block: CompiledBlock(block, forward), inside=("aggregator",))

    def run(images: Tensor) -> dict[str, Any]:
        # Many numbers of images are as many shapes; beyond PyTorch's limit of 8 it would go on uncompiled silently.
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            outputs: dict[str, Any] = twin(images)
            return outputs

    return run


def _with_blocks(module: nn.Module, change: Callable[[Block], nn.Module], inside: tuple[str, ...] = ()) -> nn.Module:
    """The same module with its blocks changed, those of the named children only; all else is shared."""
    if isinstance(module, Block):
        return change(module)
    twin = copy.copy(module)
    twin._modules = {
        name: child if child is None or (inside and name not in inside) else _with_blocks(child, change)
        for name, child in module._modules.items()
    }
    return twin


def _compiled(engine: Engine) -> Engine:
    """The same engine with compiled blocks, replayed as a CUDA graph: without it, Python's time would be measured.

    Under autocast there is no graph: it would read weights that autocast made before it and forgets after the pass. Nor
    is there one around a library that waits for the GPU in its products, as uncompiled ones of the heads do.

    Raises:
        UnsupportedError: There is no Triton to compile for the GPU.
    """
    if not has_triton():
        raise UnsupportedError("torch.compile needs Triton on a GPU, which is not installed.")
    forward, name = compiled(engine.model), "plain, its blocks by torch.compile"
    if engine.settings.autocast or _waiting(engine.model):
        return dataclasses.replace(engine, kernels=engine.kernels | {"engine": name}, forward=forward)
    from vggt_quant.inference.fast.graph import WORDS, GraphedPass

    kernels = engine.kernels | {"engine": f"{name}, {WORDS}"}
    return dataclasses.replace(engine, kernels=kernels, forward=GraphedPass(forward, engine.model.config.patch_size))


def _fast(engine: Engine, owns_weights: bool) -> Engine:
    """The same engine with the fast pass, or with the reason why there is none.

    Raises:
        UnsupportedError: The settings ask for what only the fast pass has.
    """
    reason = _not_fast(engine)
    if reason and engine.settings.attention != "bfloat16":
        raise UnsupportedError(f"{engine.settings.attention} attention is not supported here: {reason}.")
    if reason:
        return dataclasses.replace(engine, kernels=engine.kernels | {"engine": f"plain: {reason}"})
    from vggt_quant.inference import fast

    if owns_weights:
        fast.lay_out(engine.model)
    forward, names = fast.prepare(engine.model, engine.device, engine.settings)
    return dataclasses.replace(engine, kernels=engine.kernels | names, forward=forward)


def _waiting(model: VGGT) -> list[str]:
    """The formats whose product no CUDA graph can hold."""
    layers = packed_layers(model).values()
    return sorted({layer.format for layer in layers if not layer.in_graphs})


def _not_fast(engine: Engine) -> str | None:
    """Why there is no fast pass, or None."""
    if not has_triton():
        return "Triton is not installed"
    if waiting := _waiting(engine.model):
        return f"{', '.join(waiting)} waits for the GPU in every product, which no CUDA graph can hold"
    # Here and not above: the kernels want Triton, which comes with PyTorch's CUDA builds for Linux only.
    from vggt_quant.inference import fast

    return fast.unsupported(engine.model, engine.device, engine.settings.attention)


def _remark(dtype: str, device: str, run: RunSettings) -> str:
    """A remark on the arithmetic of the layers that were not quantized."""
    if run.autocast:
        return f" under {run.autocast} autocast"
    if run.tf32:
        return " (TF32)"
    return " (no TF32, no cuDNN)" if device == "cuda" and dtype == "float32" else ""
