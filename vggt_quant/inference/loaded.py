"""`load`: open a model by name or path. It runs on the engine that the report measured, and is still a VGGT module."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules import module

from vggt_quant.inference.engine import Engine, UnsupportedError, ready
from vggt_quant.inference.weights_stamp import WeightsStamp
from vggt_quant.model import VGGT
from vggt_quant.model.device import pick_device
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import made_by
from vggt_quant.quantization.checkpoint import is_packed, load_packed, read_manifest
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.variants import RunSettings, Variant, find_variant

Outputs = dict[str, Tensor | list[Tensor]]

ONE_AT_A_TIME = threading.RLock()
"""PyTorch's switches for arithmetic belong to the process, and a CUDA graph has one set of buffers."""


PLAIN = RunSettings(engine="plain")


def load(
    name_or_path: Path | str,
    *,
    device: str | torch.device = "cpu",
    run: RunSettings | Variant | str | None = None,
) -> LoadedVGGT:
    """Open a model by whatever names it, ready to run: eval mode, no gradients.

    Args:
        name_or_path: A packed checkpoint, a hub id ("facebook/VGGT-1B"), a weight file or folder, the small trained
            model ("tiny"), or seeded random weights ("small-random"). A folder or hub model may also hold a packed
            checkpoint.
        device: Where its tensors go; "auto" takes the GPU where there is one.
        run: How it is run there: like a variant ("fp8_attention8", or a `Variant` of your own), or by settings. None
            runs a packed checkpoint like the variant that made it, and all else by the fast engine; see `LoadedVGGT`.

    Raises:
        ValueError: Nothing of that name, or something that is not VGGT, or no such device or run; the sentence says
            what to do.
    """
    target, run = pick_device(device), _run_settings(run)
    path = Path(name_or_path).expanduser()
    if path.is_file() and is_packed(path):
        return _load_packed(path, target, run)
    source = resolve(str(name_or_path))
    if len(source.paths) == 1 and is_packed(source.paths[0]):
        return _load_packed(source.paths[0], target, run)
    return LoadedVGGT(load_pretrained(source, device=target), run)


def _run_settings(run: Any) -> RunSettings | None:
    if run is None or isinstance(run, RunSettings):
        return run
    if isinstance(run, str | Variant):
        return (find_variant(run) if isinstance(run, str) else run).run
    raise ValueError(
        f"run is {run!r}, a {type(run).__name__}; give a variant's name such as 'fp8_attention8', or leave it out."
    )


def _load_packed(path: Path, device: torch.device, run: RunSettings | None) -> LoadedVGGT:
    if run is None:
        made_by.run_of(read_manifest(path).get("variant"), f"{path}: variant")  # refuse it now, not at the first call
    return LoadedVGGT(load_packed(path, device=device), run)


class LoadedVGGT(VGGT):
    """A VGGT that runs by the engine that the report's times are of, and by its plain modules where that cannot.

    The engine takes images on a CUDA device without query points, where nothing wants a gradient and no module inside
    has hooks; `ran` says which code ran, and why. It is prepared at the first call, for the weights of that call, and
    anew when they have changed (`WeightsStamp` says what is noticed). On CUDA it lays the weights of the dense heads
    out with channels innermost, as cuDNN wants them. float32 is computed without TF32, as `Engine` says.

    Without settings of the caller's it runs as the variant does that quantized it. Where the machine cannot, it runs
    its plain modules, and `ran` says so; the caller's own settings are refused there.
    """

    run: RunSettings | None
    """How the caller wants it run; None: as the variant that quantized it."""
    prepared: Prepared

    def __init__(self, model: VGGT, run: RunSettings | None = None) -> None:
        nn.Module.__init__(self)
        _share(model, self)
        made_by.remember(self, made_by.remembered(model))
        self.run, self.prepared, self._warned_of_size = run, Prepared(), False

    def forward(self, images: Tensor, query_points: Tensor | None = None) -> Outputs:
        """Reconstruct one or more scenes, as `VGGT.forward` says; the images may lie on any device."""
        device = self.aggregator.camera_token.device
        if not self._warned_of_size and images.ndim > 3:
            self._expect_size(max(images.shape[-2:]))
        images = images.to(device)
        reason = why_plain(images, query_points)
        if reason:
            self.prepared.ran = f"plain: {reason}{self._cuda_only(device)}"
            return super().forward(images, query_points)
        with ONE_AT_A_TIME:
            outputs = self.prepared.outputs(self, self._check_images(images))
            if outputs is not None:
                return outputs
            with self.prepared.arithmetic():
                return super().forward(images)

    @property
    def settings(self) -> RunSettings:
        """How it is to be run: as the caller said, else as the variant that quantized it."""
        return self.run or made_by.run_of(made_by.remembered(self), "the model's variant")

    def _cuda_only(self, device: torch.device) -> str:
        """A remark where the settings are not for that device."""
        settings = self.settings
        return "" if device.type in settings.devices else f", and {settings.cuda_only} runs on cuda only"

    def _expect_size(self, longer: int) -> None:
        """Warn, once for a model, of images that are much larger or smaller than those that it was trained on."""
        trained = self.config.img_size
        if 2 * longer <= 3 * trained and 2 * trained <= 3 * longer or torch.compiler.is_compiling():
            return
        self._warned_of_size = True
        warnings.warn(
            f"The longer side of these images is {longer} pixels, but the model was trained on {trained}, so its "
            "outputs may be poor; prepare the images with load_images(paths, model=model).",
            stacklevel=5,  # the caller's line: below lie forward and two functions of nn.Module
        )

    @property
    def ran(self) -> str:
        """The code of the last call, "fast, ..." or "plain: REASON"; empty before the first."""
        return self.prepared.ran

    @property
    def kernels(self) -> dict[str, str]:
        """What multiplies at the present weights, by format, as a result file says it; empty before the first call."""
        engine = self.prepared.engine
        return dict(engine.kernels) if engine else {}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module."""
        self.prepared.forget()
        return super().load_state_dict(*args, **kwargs)

    def set_submodule(self, *args: Any, **kwargs: Any) -> None:
        """As of any module."""
        self.prepared.forget()
        super().set_submodule(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.prepared.forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch's
        return self


class Prepared:
    """The engine for a model's present weights, and what ran last. A copy or a pickle of it is empty."""

    def __init__(self) -> None:
        self.ran = ""
        self.forget()

    def forget(self) -> None:
        """Let go of the engine, and of the memory of weights that it worked on."""
        self.engine: Engine | None = None
        self._stamp: WeightsStamp | None = None
        self._reason: str | None = None
        self._wants_gradients = False

    def outputs(self, model: LoadedVGGT, images_BS3HW: Tensor) -> Outputs | None:
        """The engine's, which is prepared where the model has changed; None, and the reason in `ran`, if it cannot."""
        if self._stamp and self._can_run():
            first = self._run(images_BS3HW)
            # Compared while the GPU works. Where something has changed, these outputs are dropped.
            if self._stamp.is_current():
                return first
        elif self._stamp and self._stamp.is_current():
            return None
        self._prepare(model)
        found = self._run(images_BS3HW) if self._can_run() else None
        self._stamp = WeightsStamp(model)  # after the pass, in which libraries may lay out weights of theirs
        return found

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """PyTorch's switches as the engine has them; the caller's own where a gradient or autocast is asked for."""
        wants_gradients = self._wants_gradients and torch.is_grad_enabled()
        if self.engine is None or wants_gradients or torch.is_autocast_enabled(self.engine.device.type):
            return contextlib.nullcontext()
        return self.engine.arithmetic()

    def _prepare(self, model: LoadedVGGT) -> None:
        self.forget()
        device = model.aggregator.camera_token.device
        stamp = WeightsStamp(model)
        twin = VGGT.__new__(VGGT)  # not the model itself, which then would hold itself
        nn.Module.__init__(twin)
        _share(model, twin)
        self._reason = None
        try:
            self.engine = ready(twin, device.type, model.settings, owns_weights=True)
        except UnsupportedError as error:
            if model.run is not None:
                raise
            self.engine, self._reason = ready(twin, device.type, PLAIN, owns_weights=True), str(error).rstrip(".")
        self._wants_gradients = stamp.needs_gradients
        self._reason = self._reason or _why_not(self.engine, stamp)

    def _can_run(self) -> bool:
        assert self.engine is not None
        wants_gradients = self._wants_gradients and torch.is_grad_enabled()
        reason = "a parameter wants a gradient" if wants_gradients else self._reason
        self.ran = f"plain: {reason}" if reason else self.engine.kernels["engine"]
        return reason is None

    def _run(self, images_BS3HW: Tensor) -> Outputs:
        """Scene by scene: tensors that a caller can go on with, also where he is in inference mode."""
        assert self.engine is not None
        with torch.inference_mode(False), torch.no_grad():
            return _together([self.engine.call(images_S3HW) for images_S3HW in images_BS3HW])

    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()


def why_plain(images: Tensor, query_points: Tensor | None) -> str | None:
    """Why a call goes to the plain modules whatever the weights are, or None."""
    kind = images.device.type
    if reason := no_engine_on(images.device):
        return reason
    if query_points is not None:
        return "query points were given"
    if images.requires_grad and torch.is_grad_enabled():
        return "the images want a gradient"
    if torch.compiler.is_compiling():
        return "torch.compile traces it"
    if torch._C._len_torch_dispatch_stack() or module._has_any_global_hook():  # type: ignore[no-untyped-call]  # PyTorch's
        return "a counter, profiler or hook watches every operation"
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.bfloat16:
        return f"autocast to {torch.get_autocast_dtype(kind)} is on"
    return None


def no_engine_on(device: torch.device) -> str | None:
    """Why no engine runs there, or None."""
    if device.type != "cuda":
        return f"the model is on {device.type}"
    is_current = device.index in (None, torch.cuda.current_device())
    return None if is_current else f"the model is on {device}, which is not the current GPU"


def _why_not(engine: Engine, stamp: WeightsStamp) -> str | None:
    """Why the engine cannot run a model with these weights, or None."""
    if stamp.is_watched:
        return "a module inside has hooks or an overridden forward"
    for layer in {type(layer) for layer in packed_layers(engine.model).values()}:
        reason = layer.unsupported(engine.device)
        if reason:
            return reason
    if engine.forward is None and engine.settings.engine == "plain":
        return "its settings ask for that"
    if engine.forward is None:
        words = engine.kernels.get("engine", f"plain: it computes in {engine.compute_dtype}")
        return words.removeprefix("plain: ").removeprefix("plain, ")
    return None


def _share(model: VGGT, other: VGGT) -> None:
    """Give another VGGT the same parts."""
    other.config = model.config
    for name in ("aggregator", "camera_head", "depth_head", "point_head", "track_head"):
        setattr(other, name, getattr(model, name))
    other.training = model.training


def _together(scenes: list[Outputs]) -> Outputs:
    """Outputs of single scenes as one batch."""
    if len(scenes) == 1:
        return scenes[0]
    batch: Outputs = {}
    for name, first in scenes[0].items():
        values: list[Any] = [scene[name] for scene in scenes]
        if isinstance(first, list):
            batch[name] = [torch.cat(same) for same in zip(*values, strict=True)]
        else:
            batch[name] = torch.cat(values)
    return batch
