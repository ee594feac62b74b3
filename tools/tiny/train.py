"""Trains the small VGGT on rooms drawn as it goes: no data set, no repetition.

    torchrun --nproc_per_node 2 tools/tiny/train.py --seconds 1400 --out DIR           # one process a GPU
    torchrun --nproc_per_node 2 tools/tiny/train.py --seconds 1400 --out DIR --resume DIR

`--seconds` is the length of the whole schedule in seconds of training; the learning rate falls to zero at its end,
however fast the machine is. The state (bfloat16 weights in two files of less than 16 MiB, and progress.json) is written
every minute, whole or not at all; a resumed run goes on at the second where the state was written, with fresh moments
after a short warm-up. Runs on the CPU too, uncompiled (`--views 12` to try it).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist
from fast_blocks import use_fast_blocks
from graphed_pass import Pass, resize
from held_out import SIZE, load, part, photograph
from judge import judge
from muon import Muon
from state import read_state, write_state
from torch import Tensor, nn

from vggt_quant.data.synthetic import raycasting
from vggt_quant.data.synthetic.raycasting import Cameras, Rooms
from vggt_quant.data.synthetic.rooms import Draw, sample
from vggt_quant.model import VGGT, dpt_head
from vggt_quant.model.config import NAMED
from vggt_quant.model.layers import Block

VIEWS_PER_SCENE = (2, 3, 4, 4, 6)
"""Taken in turn; each divides the number of views of a step, so that per-frame work has one shape only."""
STEPS_PER_DRAW = 8
WARMUP_STEPS = 300
DECAY_SHARE = 0.6
"""The last part of the schedule, in which the rate falls linearly to zero."""
CLIP_NORM = 2.0


@dataclass
class Progress:
    """What a resumed run needs to know, and the curve so far."""

    seconds: float = 0.0
    step: int = 0
    runs: int = 0
    settings: list[dict] = field(default_factory=list)
    """Arguments and versions of each run."""
    curve: list[dict] = field(default_factory=list)


def main() -> None:
    """Train until the schedule, or the time given to this call, is over."""
    args = _arguments()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    progress = Progress()
    torch.manual_seed(args.seed)
    model = initialise(VGGT(NAMED["tiny"]))
    if args.resume:
        weights, stored = read_state(args.resume)
        model.load_state_dict(weights)
        progress = Progress(**stored)
    progress.runs += 1
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    facts = {"torch": torch.__version__, "device": gpu, "processes": world, "started": datetime.now(UTC).isoformat()}
    progress.settings.append({name: str(value) for name, value in (vars(args) | facts).items()})
    Trainer(model.to(device).train(), progress, args, rank, world).run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True, help="length of the whole schedule")
    parser.add_argument("--at-most", type=float, default=1e9, help="seconds of training in this call")
    parser.add_argument("--out", type=Path, required=True, help="folder of the state")
    parser.add_argument("--resume", type=Path, help="folder of an earlier state")
    parser.add_argument("--rate", type=float, default=2e-3, help="of Muon")
    parser.add_argument("--adam-rate", type=float, default=1e-3, help="of AdamW, for all that is no hidden matrix")
    parser.add_argument("--views", type=int, default=192, help="views of a step on each GPU, a multiple of 12")
    parser.add_argument("--judge-every", type=float, default=60, help="seconds between judgements and saved states")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def initialise(model: VGGT) -> VGGT:
    """Start small: dense maps near one distance, poses at the first camera with a field of view of a radian."""
    with torch.no_grad():
        for head in (model.depth_head, model.point_head):
            head.scratch.output_conv2[-1].weight.mul_(0.3)
        last = model.camera_head.pose_branch.fc2
        last.weight.mul_(0.1)
        start = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1])
        last.bias.copy_(start / model.camera_head.num_iterations)
        blocks = [m for m in model.modules() if isinstance(m, Block)]
        for linear in (m for block in blocks for m in block.modules() if isinstance(m, nn.Linear)):
            nn.init.trunc_normal_(linear.weight, std=0.7 * linear.in_features**-0.5)
    return model


class Trainer:
    """One process of the training."""

    def __init__(self, model: VGGT, progress: Progress, args: argparse.Namespace, rank: int, world: int) -> None:
        self.model, self.progress, self.args, self.rank, self.world = model, progress, args, rank, world
        self.device = next(model.parameters()).device
        self.is_cuda = self.device.type == "cuda"
        self.draw = Draw(1_000_003 * (args.seed + 1) + 1009 * progress.runs + rank, self.device)
        self.gradients = self._flat_gradients()
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        hidden = [(n, p) for n, p in named if p.ndim == 2 and min(p.shape) > 16 and "token" not in n]
        self.muon = Muon(hidden)
        names = {n for n, _ in hidden}
        rest = [p for n, p in named if n not in names]
        self.adam = torch.optim.AdamW(
            rest, lr=args.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True if self.is_cuda else None
        )
        dpt_head.resize = resize
        for head in (model.depth_head, model.point_head):
            head.frames_per_chunk = 10**6
        use_fast_blocks(model, compiled=self.is_cuda)
        if self.is_cuda:
            torch.set_float32_matmul_precision("high")
            raycasting.shade = torch.compile(raycasting.shade, dynamic=False)
            raycasting.cast = torch.compile(raycasting.cast, dynamic=False)
        self.passes: dict[int, Pass] = {}

    def _flat_gradients(self) -> Tensor:
        """One buffer that all gradients are views of: one all-reduce, one norm, one zeroing."""
        self.model.aggregator.patch_embed.mask_token.requires_grad_(False)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        flat = torch.zeros(sum(p.numel() for p in parameters), device=self.device)
        start = 0
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return flat

    def run(self) -> None:
        """Steps, judgements and saved states, until time is over."""
        progress, args = self.progress, self.args
        held_out = self._held_out() if self.rank == 0 else None
        started = time.perf_counter()
        for num_views in sorted(set(VIEWS_PER_SCENE)):
            self.passes[num_views] = Pass(self, *next(self._batches(num_views)))
        self._say(f"ready after {time.perf_counter() - started:.0f} s")
        batches = self._batches(*VIEWS_PER_SCENE)
        begun_at = judged = progress.seconds
        clock, step_in_run, is_over = time.perf_counter(), 0, False
        while not is_over:
            loss = self._step(*next(batches), step_in_run)
            step_in_run += 1
            progress.step += 1
            if step_in_run % 10 == 0:
                progress.seconds = begun_at + self._agree(time.perf_counter() - clock)
            is_over = progress.seconds >= min(args.seconds, begun_at + args.at_most)
            if progress.seconds - judged >= args.judge_every or is_over:
                judged = progress.seconds
                if self.rank == 0:
                    self._report(held_out, loss)
        if self.world > 1:
            dist.barrier()
            dist.destroy_process_group()

    def _agree(self, seconds: float) -> float:
        """The first process's clock, so that all take the same decisions."""
        if self.world == 1:
            return seconds
        shared = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)

    def _batches(self, *views_per_scene: int) -> Iterator[tuple[Rooms, Cameras]]:
        """(rooms, cameras) of one step after the other."""
        while True:
            for num_views in views_per_scene:
                count = self.args.views // num_views
                rooms, cameras = sample(STEPS_PER_DRAW * count, num_views, self.draw, height=SIZE, width=SIZE)
                for start in range(0, STEPS_PER_DRAW * count, count):
                    yield tuple(part(batch, start, count) for batch in (rooms, cameras))

    def _step(self, rooms: Rooms, cameras: Cameras, step_in_run: int) -> Tensor:
        losses = self.passes[cameras.extrinsics.shape[1]](rooms, cameras)
        if self.world > 1:
            dist.all_reduce(self.gradients, op=dist.ReduceOp.AVG if self.is_cuda else dist.ReduceOp.SUM)
        self.gradients.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self.gradients.mul_((CLIP_NORM / (self.gradients.norm() + 1e-9)).clamp(max=1))
        factor = self._rate_factor(step_in_run)
        self.muon.step(self.args.rate * factor)
        for group in self.adam.param_groups:
            group["lr"] = self.args.adam_rate * factor
        self.adam.step()
        return losses

    def _rate_factor(self, step_in_run: int) -> float:
        left = 1 - self.progress.seconds / self.args.seconds
        return min(1.0, (step_in_run + 1) / WARMUP_STEPS, max(0.0, left / DECAY_SHARE))

    def _held_out(self) -> tuple[dict[str, Tensor], Cameras]:
        rooms, cameras = load(self.device)
        return photograph(rooms, cameras), cameras

    def _report(self, held_out: tuple[dict[str, Tensor], Cameras], loss: Tensor) -> None:
        with torch.compiler.set_stance("force_eager"):
            row = judge(self.model, *held_out)
        names = ("camera_loss", "depth_loss", "point_loss")
        row = {"seconds": round(self.progress.seconds, 1), "step": self.progress.step, **row}
        self.progress.curve.append(row | dict(zip(names, loss.tolist(), strict=True)))
        self._say(json.dumps(self.progress.curve[-1]))
        write_state(self.model, vars(self.progress), self.args.out)

    def _say(self, line: str) -> None:
        if self.rank == 0:
            print(line, flush=True)


if __name__ == "__main__":
    main()
