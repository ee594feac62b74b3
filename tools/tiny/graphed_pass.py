"""What one training step computes: photographs, losses and gradients; on a GPU as one CUDA graph."""

from __future__ import annotations

from typing import Protocol

import torch
from held_out import SIZE
from losses import CAMERA_WEIGHT, camera_loss, depth_loss, point_loss, targets
from torch import Tensor
from torch.nn import functional

from vggt_quant.data.synthetic import raycasting
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms
from vggt_quant.data.synthetic.rooms import Draw
from vggt_quant.model import VGGT

DENSE_SHARE = 3
"""One in this many views gets the dense losses, which take most of the time and teach the backbone least."""


def resize(x_FChw: Tensor, size: tuple[int, int]) -> Tensor:
    """`dpt_head.resize` as two matrix products: the same map, with a backward pass that needs no atomic adds."""
    rows, columns = (_interpolation(n, to, x_FChw) for n, to in zip(x_FChw.shape[-2:], size, strict=True))
    x = x_FChw.permute(0, 2, 3, 1)
    x = (rows @ x.flatten(2)).unflatten(2, (x.shape[2], -1))
    return (columns @ x).permute(0, 3, 1, 2)


def _interpolation(count: int, to: int, like: Tensor) -> Tensor:
    """[to, count] weights of linear interpolation with corners on corners."""
    identity = torch.eye(count, device=like.device)[None]
    return functional.interpolate(identity, size=to, mode="linear", align_corners=True)[0].mT.to(like.dtype)


class Training(Protocol):
    """What a pass needs to know of the training that it belongs to."""

    model: VGGT
    device: torch.device
    is_cuda: bool
    draw: Draw
    gradients: Tensor
    """One buffer that the gradients of all parameters are views of."""


class Pass:
    """Photographs, losses and gradients for one number of views a scene; on a GPU one CUDA graph."""

    def __init__(self, trainer: Training, rooms: Rooms, cameras: Cameras) -> None:
        self.trainer = trainer
        frames = cameras.extrinsics.shape[0] * cameras.extrinsics.shape[1]
        self.num_chosen = frames // DENSE_SHARE
        self.inputs = [t.clone() for t in self._tensors(rooms, cameras)]
        self.rooms = Rooms(**dict(zip(Rooms.__slots__, self.inputs, strict=False)))
        self.cameras = Cameras(extrinsics=self.inputs[-2], intrinsics=self.inputs[-1])
        self.chosen = torch.arange(self.num_chosen, device=trainer.device)
        self.graph = self._capture() if trainer.is_cuda else None

    @staticmethod
    def _tensors(rooms: Rooms, cameras: Cameras) -> list[Tensor]:
        return [getattr(rooms, name) for name in Rooms.__slots__] + [cameras.extrinsics, cameras.intrinsics]

    def __call__(self, rooms: Rooms, cameras: Cameras) -> Tensor:
        """Leave the gradients of a step in the trainer's buffer, and return the three losses [3]."""
        torch._foreach_copy_(self.inputs, self._tensors(rooms, cameras))
        frames = self.num_chosen * DENSE_SHARE
        chosen = torch.randperm(frames, device=self.trainer.device, generator=self.trainer.draw.generator)
        self.chosen.copy_(chosen[: self.num_chosen])
        if self.graph is None:
            return self._run()
        self.graph.replay()
        return self.losses

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.losses = self._run()
        return graph

    def _run(self) -> Tensor:
        trainer = self.trainer
        trainer.gradients.zero_()
        with torch.no_grad():
            views = self._photograph()
            truth = targets(views, self.cameras)
        with torch.autocast(trainer.device.type, dtype=torch.bfloat16, enabled=trainer.is_cuda):
            losses = self._losses(views["rgb"], truth)
        (CAMERA_WEIGHT * losses[0] + losses[1] + losses[2]).backward()
        return torch.stack(losses).detach()

    def _photograph(self) -> dict[str, Tensor]:
        """Render every view as a separate room, so that one compiled shape serves all numbers of views."""
        num_views = self.cameras.extrinsics.shape[1]
        each = Rooms(**{name: getattr(self.rooms, name).repeat_interleave(num_views, 0) for name in Rooms.__slots__})
        extrinsics, intrinsics = (t.flatten(0, 1)[:, None] for t in (self.cameras.extrinsics, self.cameras.intrinsics))
        views = raycasting.render(each, Cameras(extrinsics=extrinsics, intrinsics=intrinsics), SIZE, SIZE)
        return {name: tensor[:, 0].unflatten(0, (-1, num_views)) for name, tensor in views.items()}

    def _losses(self, rgb: Tensor, truth: dict[str, Tensor]) -> list[Tensor]:
        """Camera loss of all views, dense losses of some of them."""
        model = self.trainer.model
        tokens = model.aggregator(rgb, model.kept_layers())
        poses = model.camera_head(tokens[model.config.aggregator.depth - 1][:, :, 0])
        special = model.aggregator.num_special
        patches = {layer: kept.flatten(0, 1)[self.chosen, special:][None] for layer, kept in tokens.items()}
        depth, points = (head(patches, (SIZE, SIZE))[0] for head in (model.depth_head, model.point_head))
        true_depth, true_points = (truth[name].flatten(0, 1)[self.chosen] for name in ("depth", "points"))
        return [camera_loss(poses, truth["pose"]), depth_loss(depth, true_depth), point_loss(points, true_points)]
