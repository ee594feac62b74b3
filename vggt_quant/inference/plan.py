"""In which arithmetic an engine runs each product of a pass: the rules of `engine`, `fast` and the formats, as a table.

float32, tf32, bfloat16, float16, int8, float8
tf32x3     float32 out of three TF32 products: PyTorch's attention for float32 on CUDA
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vggt_quant.inference import attention
from vggt_quant.inference.attention._choice import takes
from vggt_quant.quantization.formats.base import PackedBase
from vggt_quant.variants import RunSettings

Kind = Literal["linear", "convolution", "scores", "values"]
"""Scores are queries times keys; values are probabilities times values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of an engine for a number of images of one size."""

    settings: RunSettings
    packed: Mapping[str, PackedBase]
    """By the name of the layer."""
    compute_dtype: str
    device: str
    """Its kind."""
    is_fast: bool
    """Whether the fast pass runs, and not the plain modules."""
    num_images: int
    tokens: int
    """Of one image."""

    def arithmetic(self, layer: str, kind: Kind) -> str:
        """What a product of the layer is multiplied in."""
        packed, run = self.packed.get(layer), self.settings
        if packed is not None and packed.arithmetic:
            return packed.arithmetic
        if kind in ("scores", "values") and self._is_named_backends(layer):
            backend = attention.get(run.attention)
            return backend.scores if kind == "scores" else backend.values
        if run.autocast and layer.startswith("aggregator."):
            return run.autocast
        if self.compute_dtype != "float32":
            return self.compute_dtype
        if kind in ("scores", "values") and self.device == "cuda":
            return "tf32x3"
        return "tf32" if run.tf32 or (run.autocast and kind == "convolution") else "float32"

    def _is_named_backends(self, layer: str) -> bool:
        """Whether the attention that the settings name takes it; the heads' is never one of those."""
        if not self.is_fast or self.settings.attention == "bfloat16" or not layer.startswith("aggregator."):
            return False
        sequences = 1 if layer.startswith("aggregator.global_blocks.") else self.num_images
        return takes(sequences, self.num_images * self.tokens, self.settings.attention_tokens)
