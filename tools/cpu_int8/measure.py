"""How fast is int8 arithmetic on this CPU? One block of VGGT-1B, its Linears, the small model and its Linears.

    python tools/cpu_int8/measure.py [--threads N] [--samples N] [--patience SECONDS] [--out FILE]

All variants are timed in turn, again and again, so that other load on the machine affects all equally. A sample is a
number of calls that takes a tenth of a second. Before each sample the tool waits until the machine is quiet, in total
no longer than `--patience`. It reports for each variant the fastest sample; the median and the number of quiet samples
(other programs used less than 5 percent of one core); and the median processor time of this process. With one thread
the processor time is the time on a quiet machine, except for caches that others fill. With more threads it includes
waiting.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vggt_quant.kernels import cpu_int8, torch_reference
from vggt_quant.model.layers import Block
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import formats, quantize
from vggt_quant.quantization.policy import select
from vggt_quant.runtime import machine, provenance
from vggt_quant.variants import Policy, load_variants

TOKENS = 930
"""One frame of 350x518."""
WAYS = {
    "fp32": ("fp32", torch.float32),
    "bf16": ("bf16", torch.bfloat16),
    "quantize_dynamic, fp32": ("pytorch_dynamic_int8", torch.float32),
    "w8a8, fp32": ("int8_w8a8", torch.float32),
    "w8a8 with zero points, fp32": ("int8_w8a8_asymmetric", torch.float32),
    "w8a8, bf16": ("int8_w8a8", torch.bfloat16),
    "w8a8 with zero points, bf16": ("int8_w8a8_asymmetric", torch.bfloat16),
    "w8a16, bf16": ("int8_symmetric", torch.bfloat16),
}
"""Variant, and the type of all that it does not quantize."""
SAMPLE_SECONDS = 0.1
QUIET = 0.05
POLL_SECONDS = 0.2

Calls = dict[str, Callable[[], object]]


class Sample(NamedTuple):
    """One sample, per call."""

    wall_ms: float
    processor_ms: float
    is_quiet: bool


def time_in_turn(calls: Calls, samples: int, patience: float) -> dict[str, dict]:
    """Milliseconds of each call."""
    counts = {name: _calls_per_sample(call) for name, call in calls.items()}
    taken: dict[str, list[Sample]] = {name: [] for name in calls}
    deadline = time.monotonic() + patience
    for _ in range(samples):
        for name, call in calls.items():
            _wait_for_quiet(deadline)
            taken[name].append(_sample(call, counts[name]))
    return {name: _summary(values) for name, values in taken.items()}


def _calls_per_sample(call: Callable) -> int:
    call()
    started = time.perf_counter()
    call()
    return max(1, round(SAMPLE_SECONDS / (time.perf_counter() - started)))


def _sample(call: Callable, count: int) -> Sample:
    (all_before, own_before), started = machine.busy_seconds(), time.perf_counter()
    for _ in range(count):
        call()
    seconds = time.perf_counter() - started
    all_after, own_after = machine.busy_seconds()
    own = own_after - own_before
    # The machine's clock counts in hundredths.
    is_quiet = all_after - all_before - own < QUIET * seconds + 0.01
    return Sample(seconds / count * 1e3, own / count * 1e3, is_quiet)


def _wait_for_quiet(deadline: float) -> None:
    while time.monotonic() < deadline and not _sample(lambda: time.sleep(POLL_SECONDS), 1).is_quiet:
        pass


def _summary(samples: list[Sample]) -> dict:
    quiet = [sample.wall_ms for sample in samples if sample.is_quiet]
    return {
        "fastest_ms": min(sample.wall_ms for sample in samples),
        "quiet_median_ms": statistics.median(quiet) if quiet else None,
        "processor_median_ms": statistics.median(sample.processor_ms for sample in samples),
        "quiet_samples": len(quiet),
        "samples": len(samples),
    }


def quantized(module: nn.Module, way: str) -> nn.Module:
    """A copy of the module, quantized as that entry of WAYS says."""
    variant, dtype = WAYS[way]
    wrapped = nn.Sequential(copy.deepcopy(module))
    quantize.run(wrapped, load_variants()[variant], dtype=dtype)
    return wrapped[0]


def linears_of_block() -> Calls:
    """The four Linears of a block one after the other, each on a separate input."""
    layers = [nn.Linear(k, n) for k, n in ((1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024))]
    inputs = [torch.randn(TOKENS, layer.in_features) for layer in layers]
    return _linear_calls(layers, inputs, inputs_are_fp32=True)


def linears_of(model: nn.Module, images: Tensor) -> Calls:
    """All Linears of a model that are quantized, each on the inputs that it gets in a pass."""
    layers, inputs = [], []

    def keep(layer: nn.Module, args: tuple) -> None:
        layers.append(layer)
        inputs.append(args[0].clone())

    hooks = [model.get_submodule(name).register_forward_pre_hook(keep) for name in select(model, Policy()).quantized]
    model(images)
    for hook in hooks:
        hook.remove()
    return _linear_calls(layers, inputs)


def _linear_calls(layers: list[nn.Module], inputs: list[Tensor], *, inputs_are_fp32: bool = False) -> Calls:
    calls = {}
    for way, (_, dtype) in WAYS.items():
        made = {layer: quantized(layer, way) for layer in set(layers)}
        pairs = [(made[layer], x.to(dtype)) for layer, x in zip(layers, inputs, strict=True)]
        calls[way] = lambda pairs=pairs: [layer(x) for layer, x in pairs]
    if inputs_are_fp32:
        calls |= _parts([quantized(layer, "w8a8, fp32") for layer in layers], inputs)
    return calls


def _parts(layers: list[nn.Module], inputs: list[Tensor]) -> Calls:
    """What the time of w8a8 consists of, and the plain twins."""
    rows = [torch_reference.quantize_rows(x, "int8") for x in inputs]

    def twin() -> list[Tensor]:
        return [
            torch_reference.multiply_rows(
                torch_reference.quantize_rows(x, "int8"),
                layer.weight_packed,
                layer.weight_scale.flatten(),
                None,
                layer.bias,
            )
            for layer, x in zip(layers, inputs, strict=True)
        ]

    return {
        "of w8a8: quantize rows": lambda: [cpu_int8.quantize_rows(x, "int8") for x in inputs],
        "of w8a8: torch._int_mm": lambda: [
            torch._int_mm(row.values_MK, layer.weight_packed.t()) for row, layer in zip(rows, layers, strict=True)
        ],
        "w8a8, plain twins": twin,
    }


def models(model: nn.Module, make_input: Callable[[torch.dtype], tuple]) -> Calls:
    """The model in every entry of WAYS."""
    calls = {}
    for way, (_, dtype) in WAYS.items():
        made, given = quantized(model, way), make_input(dtype)
        calls[way] = lambda made=made, given=given: made(*given)
    return calls


def measure(samples: int, patience: float) -> dict[str, dict]:
    """Every part by name, each with an equal share of the patience."""
    torch.manual_seed(0)
    block = Block(1024, 16, 4.0, 0.01, norm_eps=1e-5, qk_norm=True).eval().requires_grad_(False)
    tokens = torch.randn(1, TOKENS, 1024)
    tiny, images = load_pretrained(resolve("tiny")).eval(), torch.rand(4, 3, 112, 112)
    parts = {
        "Linears of a VGGT-1B block, 930 tokens": linears_of_block,
        "VGGT-1B block, 930 tokens": lambda: models(block, lambda dtype: (tokens.to(dtype),)),
        "Linears of the small model, 4 images": lambda: linears_of(tiny, images),
        "Small model, 4 images": lambda: models(tiny, lambda dtype: (images,)),
    }
    results = {}
    for name, make in parts.items():
        results[name] = time_in_turn(make(), samples, patience / len(parts))
        for way, values in results[name].items():
            quiet = values["quiet_median_ms"]
            shown = "never quiet" if quiet is None else f"{quiet:.2f} ({values['quiet_samples']} quiet)"
            times = f"fastest {values['fastest_ms']:.2f} ms, processor {values['processor_median_ms']:.2f}"
            print(f"{name}: {way}: {times}, median {shown}", flush=True)
    return results


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for quiet, all in all")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load_before = os.getloadavg()[0]
    with torch.inference_mode():
        results = measure(args.samples, args.patience)
    environment = {
        "date": provenance.now(), "commit": provenance.commit(), "cpu": machine.cpu_name(), "cores": os.cpu_count(),
        "threads": args.threads, "torch": torch.__version__, "load_before": load_before,
        "load_after": os.getloadavg()[0], "kernel": formats.layer("w8a8").kernel(torch.device("cpu")),
        "quantize_dynamic_engine": torch.backends.quantized.engine,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps({"environment": environment, "milliseconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
