"""Lower bounds on the operations and the memory traffic of one forward pass.

Operations: the products of Linears, convolutions and attention, in the arithmetic that the engine's plan
(`inference.plan`) gives them. A multiplication and its addition count as two. Norms, softmax, activations, resizing and
quantization are left out.

Bytes: each weight once, as it is stored, plus the images and the outputs. What one kernel leaves in memory for the next
is left out.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vggt_quant.inference.engine import Engine
from vggt_quant.inference.plan import Kind
from vggt_quant.model import VGGT, VGGTConfig
from vggt_quant.model.layers import Attention
from vggt_quant.quantization.checkpoint import memory_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """The operations of one layer: `linear` n + `quadratic` n^2 for n images."""

    layer: str
    """The name of its module."""
    kind: Kind
    linear: int
    quadratic: int

    def at(self, num_images: int) -> int:
        """Operations for that number of images."""
        return self.linear * num_images + self.quadratic * num_images**2


def products(config: VGGTConfig, image_size: tuple[int, int]) -> tuple[list[Product], int]:
    """The products of a pass without tracks on images of (height, width), and the bytes of its outputs for one image.

    The model is called without weights on one and on two images; nothing grows faster than by the square of that.
    """
    with torch.device("meta"):
        model = VGGT(dataclasses.replace(config, track_head=None)).requires_grad_(False)
    one, output_bytes = _count(model, torch.empty(1, 3, *image_size, device="meta"))
    two, _ = _count(model, torch.empty(2, 3, *image_size, device="meta"))
    found = []
    for (layer, kind), count in one.items():
        quadratic = two[layer, kind] // 2 - count
        found.append(Product(layer=layer, kind=kind, linear=count - quadratic, quadratic=quadratic))
    return found, output_bytes


def _count(model: VGGT, images: Tensor) -> tuple[Counter[tuple[str, Kind]], int]:
    """Operations by layer and product, and the bytes of the outputs of the pass."""
    counts: Counter[tuple[str, Kind]] = Counter()

    def note(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        counts.update({(name, kind): number for kind, number in _operations(module, x, out).items()})

    hooks = [
        module.register_forward_hook(lambda module, args, out, name=name: note(name, module, args[0], out))
        for name, module in model.named_modules()
        if isinstance(module, (Attention, nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    ]
    outputs = model(images)
    for hook in hooks:
        hook.remove()
    made = [value for name, value in outputs.items() if name != "images" and isinstance(value, Tensor)]
    return counts, sum(tensor.nbytes for tensor in made)


def _operations(module: nn.Module, x: Tensor, out: Tensor) -> dict[Kind, int]:
    if isinstance(module, Attention):
        each = 2 * x.numel() * x.shape[-2]  # [B, N, D]: N^2 dot products over D, heads together
        return {"scores": each, "values": each}
    if isinstance(module, nn.Linear):
        return {"linear": 2 * out.numel() * module.in_features}
    assert isinstance(module.weight, Tensor), module
    # Each weight meets each pixel of the side that it does not slide over.
    pixels = (x if isinstance(module, nn.ConvTranspose2d) else out)[:, 0].numel()
    return {"convolution": 2 * module.weight.numel() * pixels}


class Work:
    """The least that an engine has to do for images of one size."""

    def __init__(self, engine: Engine, image_size: tuple[int, int]) -> None:
        self.engine = engine
        self.products, output_bytes = products(engine.model.config, image_size)
        patch, special = engine.model.config.patch_size, engine.model.aggregator.num_special
        self.tokens = special + (image_size[0] // patch) * (image_size[1] // patch)
        parts = [part for name, part in engine.model.named_children() if name != "track_head"]
        self.weight_bytes = sum(memory_bytes(part) for part in parts)
        self.image_bytes = 4 * 3 * image_size[0] * image_size[1] + output_bytes

    def operations(self, num_images: int) -> dict[str, int]:
        """Operations by arithmetic."""
        counts: Counter[str] = Counter()
        plan = self.engine.plan(num_images, self.tokens)
        for product in self.products:
            counts[plan.arithmetic(product.layer, product.kind)] += product.at(num_images)
        return dict(counts)

    def least_bytes(self, num_images: int) -> int:
        """Weights, images and outputs, each once."""
        return self.weight_bytes + num_images * self.image_bytes
