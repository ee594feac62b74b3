"""Detect changes of a model since something was prepared for it, without reading its weights."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn


class WeightsStamp:
    """What a model's modules, parameters and buffers were when it was taken.

    Noticed are: tensors edited in place, replaced, moved or cast; modules replaced or added; hooks on a module inside;
    a module's own `forward`; `requires_grad`. Not noticed are values written through `.data` into the same memory,
    which PyTorch does not count, and other attributes of a module, such as a norm's eps. The memory of the tensors is
    kept, so that work on them that has begun cannot fail. For VGGT-1B a comparison takes one to two milliseconds.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._inside = modules[1:]  # not the model itself: it may hold the stamp
        self._members: list[dict[str, Any]] = [
            part for module in modules for part in (module._modules, module._parameters, module._buffers)
        ]
        self._hooks = [
            hooks
            for module in self._inside
            for hooks in (
                module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
            )
        ]  # fmt: skip
        self._held = list(chain.from_iterable(map(dict.values, self._members)))
        self._tensors = [member for member in self._held if isinstance(member, Tensor)]
        self._memory = [tensor.detach() for tensor in self._tensors]
        self._counts_edits = not any(tensor.is_inference() for tensor in self._tensors)
        self._before = self._now()

    @property
    def needs_gradients(self) -> bool:
        """Whether a tensor of the model wants a gradient."""
        return any(map(attrgetter("requires_grad"), self._tensors))

    @property
    def is_watched(self) -> bool:
        """Whether a module inside has hooks or an overridden `forward`, which the fast pass would not call."""
        return any(self._hooks) or any("forward" in vars(module) for module in self._inside)

    def is_current(self) -> bool:
        """Whether nothing has changed."""
        return self._before == self._now()

    def _now(self) -> tuple[object, ...]:
        return (
            list(map(id, chain.from_iterable(map(dict.values, self._members)))),
            list(map(attrgetter("_version"), self._tensors)) if self._counts_edits else None,
            list(map(torch.Tensor.data_ptr, self._tensors)),
            self.needs_gradients,
            any(self._hooks),
            sum(map(len, map(vars, self._inside))),
        )
