"""Replay a pass as one CUDA graph when launching its kernels would take longer than running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Outputs = dict[str, Tensor | list[Tensor]]

MOST_TOKENS = 20_000
"""Passes of more patch tokens keep the GPU busy without a graph, which would only hold memory."""

WORDS = f"one CUDA graph up to {MOST_TOKENS} patch tokens"
"""For the records."""


class GraphedPass:
    """Calls `run(images)`, or replays what it did for images of that shape; holds the graph of the last shape."""

    def __init__(self, run: Callable[[Tensor], Outputs], patch_size: int) -> None:
        self.run, self.patch_size = run, patch_size
        # One stream for all captures: cuBLAS keeps 32 MiB for each that it has ever worked on.
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # PyTorch's
        self.last_caller = torch.cuda.current_stream()
        self._forget()

    def __call__(self, images_S3HW: Tensor) -> Outputs:
        """The outputs, copies, which the caller may keep."""
        if images_S3HW.numel() // (3 * self.patch_size**2) > MOST_TOKENS:
            self._forget()
            return self.run(images_S3HW)
        if images_S3HW.shape != self.shape or not images_S3HW.is_floating_point():
            self._capture(images_S3HW)
        caller = torch.cuda.current_stream()
        if caller != self.last_caller:
            caller.wait_stream(self.last_caller)  # the outputs of the last call may still be read there
            self.last_caller = caller
        graph, images, outputs = self.captured
        images.copy_(images_S3HW)
        graph.replay()
        return _copy(outputs)

    def _forget(self) -> None:
        self.captured: Any = None  # graph, images and outputs of the last shape
        self.shape: torch.Size | None = None

    def _capture(self, images_S3HW: Tensor) -> None:
        self._forget()
        torch.cuda.empty_cache()
        images = images_S3HW.float().clone()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            # Libraries choose kernels and compile at a first call, which a capture does not allow; bad images end here.
            self.run(images_S3HW)
            # Inside, so that the caller's stream is restored after a failed capture, too.
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                outputs = self.run(images)
        torch.cuda.current_stream().wait_stream(self.stream)
        self.shape, self.captured = images_S3HW.shape, (graph, images, outputs)


def _copy(outputs: Outputs) -> Outputs:
    return {
        name: [tensor.clone() for tensor in value] if isinstance(value, list) else value.clone()
        for name, value in outputs.items()
    }
