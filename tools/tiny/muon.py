"""Muon: momentum whose matrices are made orthogonal before each step; all matrices of one shape in one batch.

Hidden matrices learn with Muon, all else with AdamW. The step is scaled so that its root mean square is 0.2 times the
rate, AdamW's usual size, so one rate serves both.

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; scale: Liu et al.,
arXiv:2502.16982.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives every singular value towards 1 (Jordan et al. 2024)."""


def orthogonalise(matrices_NRC: Tensor, *, steps: int = 5) -> Tensor:
    """Nearly U V^T of each matrix U S V^T, in bfloat16."""
    a, b, c = COEFFICIENTS
    x = matrices_NRC.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon:
    """Muon over matrices; a qkv weight counts as three."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], *, momentum: float = 0.95, decay: float = 0.02) -> None:
        self.momentum, self.decay = momentum, decay
        self.groups: dict[tuple[int, ...], list[tuple[nn.Parameter, slice]]] = defaultdict(list)
        for name, parameter in named:
            parts = 3 if ".qkv." in name else 1
            rows = parameter.shape[0] // parts
            for part in range(parts):
                self.groups[(rows, parameter.shape[1])].append((parameter, slice(part * rows, (part + 1) * rows)))
        self.buffers = {
            shape: torch.zeros(len(members), *shape, device=members[0][0].device)
            for shape, members in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by its gradient."""
        for shape, members in self.groups.items():
            gradients = torch.stack([parameter.grad[rows] for parameter, rows in members])
            buffer = self.buffers[shape].lerp_(gradients, 1 - self.momentum)
            update = orthogonalise(gradients.lerp(buffer, self.momentum))
            update = update.float() * (0.2 * max(shape) ** 0.5)
            targets = [parameter[rows] for parameter, rows in members]
            torch._foreach_mul_(targets, 1 - rate * self.decay)
            torch._foreach_add_(targets, list(update.unbind()), alpha=-rate)
