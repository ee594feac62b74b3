"""Speed: what is run, what is counted, and that counting does not disturb what is measured."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_run import photos

from vggt_quant.benchmark.timing import (
    CPU_REPEATS,
    CUDA_REPEATS,
    QUIET_SHARE,
    Repeats,
    interquartile_range,
    measure_speed,
    time_forward,
)
from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import Engine
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.variants import load_variants

VARIANTS = load_variants()


def test_repeats_are_as_many_as_promised():
    assert CPU_REPEATS.at_least >= 5 and CUDA_REPEATS.at_least >= 20
    assert min(CPU_REPEATS.warmup, CUDA_REPEATS.warmup) >= 1


@pytest.mark.parametrize("name", ["bf16", "pytorch_dynamic_int8", "int4_group64"])
def test_a_result_holds_every_repeat_and_what_ran(tmp_path, name):
    packed = make_checkpoint(prepare_model("nano-random"), VARIANTS[name], tmp_path, "cpu")
    result = measure_speed(photos(tmp_path), packed, "cpu")
    assert CPU_REPEATS.at_least <= len(result.latencies_ms) <= CPU_REPEATS.at_most
    assert min(result.latencies_ms) <= result.latency_ms_median <= max(result.latencies_ms)
    assert result.latency_ms_median == statistics.median(result.latencies_ms)
    assert result.shape == [2, 3, 84, 112]
    assert result.weights_bytes == packed.weights_bytes
    assert result.checkpoint_bytes == Path(packed.checkpoint).stat().st_size
    assert 0 < result.resident_before_bytes < result.peak_memory_bytes
    assert set(result.kernels) == {"dense", *packed.formats}
    assert (result.note is None) == (result.other_processor_share <= QUIET_SHARE)


class Counting(Engine):
    """An engine that writes down what it is asked."""

    def run(self, images):
        self.model.append("run")

    def synchronize(self):
        self.model.append("wait")


def test_every_timed_pass_runs_from_an_idle_device_to_an_idle_device():
    asked = []
    engine = Counting(model=asked, device=torch.device("cpu"), kernels={}, compute_dtype="float32")
    latencies_ms, _ = time_forward(engine, torch.zeros(1), Repeats(warmup=2, at_least=3, at_most=9, seconds=0))
    assert len(latencies_ms) == 3
    assert asked == ["run", "run"] + ["wait", "run", "wait"] * 3


def test_a_fast_model_is_timed_more_often_but_not_for_ever():
    engine = Counting(model=[], device=torch.device("cpu"), kernels={}, compute_dtype="float32")
    latencies_ms, _ = time_forward(engine, torch.zeros(1), Repeats(warmup=0, at_least=3, at_most=9, seconds=60))
    assert len(latencies_ms) == 9


class Sleeping(Engine):
    """An engine that takes its time and no processor."""

    def run(self, images):
        time.sleep(0.2)


def test_work_of_other_programs_is_seen():
    engine = Sleeping(model=None, device=torch.device("cpu"), kernels={}, compute_dtype="float32")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        _, share = time_forward(engine, torch.zeros(1), Repeats(warmup=1, at_least=5, at_most=5))
        other.kill()
    assert share * os.cpu_count() > 0.5  # it would be one whole processor if it had been alone


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 2, 3, 4, 5], 2), ([5.0] * 4, 0), ([1.0, 2], 0.5)], ids=["five", "equal", "two"]
)
def test_the_interquartile_range_is_numpys(values, expected):
    assert interquartile_range(values) == expected


def test_counting_dynamic_int8_does_not_unpack_it():
    """To count what torch packs out of sight must not raise the peak that is measured."""
    code = """
import torch
from torch import nn
import vggt_quant
from vggt_quant.runtime import memory
from vggt_quant.quantization.checkpoint import memory_bytes
model = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8)))
vggt_quant.quantize_model(model, "pytorch_dynamic_int8")
before = memory.resident_bytes()
assert memory_bytes(model) == 8 * (2048 * 2048 + 16 + 4 * 2048)
grown = memory.resident_bytes() - before
assert grown < 2 * 2048 * 2048, grown
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
