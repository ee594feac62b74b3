"""What is left out of a key by name decides nothing: each piece is disturbed, and the same comes out."""

import contextlib

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from small_run import nano_run

from vggt_quant.benchmark import sweep, timing
from vggt_quant.evaluation import accuracy, reference
from vggt_quant.inference import engine
from vggt_quant.inference.attention import _choice as attention
from vggt_quant.kernels import products
from vggt_quant.model import VGGT, VGGTConfig, aggregator, camera_head, dpt_head, layers, vit
from vggt_quant.model.weights import hub
from vggt_quant.quantization import make_checkpoint as packing
from vggt_quant.quantization.formats.base import PackedBase
from vggt_quant.results import decibels
from vggt_quant.results.schema import Provenance
from vggt_quant.runtime import cache_keys, progress
from vggt_quant.variants import DEFAULT, Variant, load_variants

VARIANTS = load_variants()
STRINGS = [name for name in Provenance.__struct_fields__ if name != "cpu_threads"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return nano_run(tmp_path_factory.mktemp("computed"))


def raising(*_, **__):
    raise AssertionError("it is not needed")


def wrong_measures(*arguments, measured=packing._measure):
    """What the making of another checkpoint cost and lost."""
    making, _ = measured(*arguments)
    return msgspec.structs.replace(making, weight_sqnr_db_median=0.0, weight_sqnr_db_min=None, seconds=1e9), "another"


CHECKPOINT = {  # what is left out -> (object, name, what stands there instead)
    "quantization.make_checkpoint:_measure": (packing, "_measure", wrong_measures),
    "results": (decibels, "sqnr_db", lambda *_: 0.0),
    "variants": (Variant, "spec", lambda self: {}),
    "runtime.progress": (progress, "steps", lambda *_: contextlib.nullcontext(lambda: None)),
    "model.config": (VGGTConfig, "to_dict", lambda self: {}),
    "model.weights.hub": (hub, "fetch", raising),
}
NOT_RUN = {
    "model": [
        (kind, "forward", raising)
        for kind in (
            VGGT,
            aggregator.Aggregator,
            camera_head.CameraHead,
            dpt_head.DPTHead,
            layers.Mlp,
            vit.VisionTransformer,
        )
    ]
}
DESCRIBED = {
    "runtime.progress": (progress, "steps", lambda *_: contextlib.nullcontext(lambda: None)),
    "runtime.provenance": (packing, "provenance", lambda _: Provenance(**dict.fromkeys(STRINGS, "x"), cpu_threads=0)),
    "runtime.cache_keys": (cache_keys, "checkpoint_key", lambda *_: "another"),
    "model.weights.hub": (hub, "fetch", raising),
}
REFERENCE = {
    "results": (reference, "OutputInfo", lambda **_: None),
    "variants": (Variant, "spec", raising),
    "runtime.progress": (reference, "track", lambda items, _: items),
    "runtime.provenance": (reference, "provenance", lambda _: None),
    "runtime.cache_keys": (cache_keys, "reference_key", lambda *_: "another"),
    "inference.fast": (engine, "_fast", raising),
    "inference.attention": (attention, "attend", raising),
    "quantization": (PackedBase, "forward", raising),
    "kernels": (products, "multiply", raising),
    "model.weights.hub": (hub, "fetch", raising),
}
MEASURED = {
    "runtime.progress": [(module, "track", lambda items, _: items) for module in (accuracy, timing)],
    "runtime.provenance": [(module, "provenance", lambda _: None) for module in (accuracy, timing, sweep)]
    + [(sweep, "kernel_libraries", dict)],
    "runtime.cache_keys": [(cache_keys, "reference_key", raising)],
}
RECORDS = {"provenance", "libraries"}
"""Fields that say where and with what."""
MACHINE = {"resident_before_bytes", "other_processor_share", "note", "device_memory_bytes"}
"""Fields that other programs decide, and so do those of memory: what earlier runs in this process left."""


@pytest.mark.parametrize(
    ("tested", "left_out"),
    [
        (CHECKPOINT, cache_keys.NOT_IN_A_CHECKPOINT),
        (NOT_RUN, cache_keys.NOT_RUN_FOR_A_CHECKPOINT),
        (DESCRIBED, cache_keys.NOT_IN_A_QUANTIZE_RESULT),
        (REFERENCE, cache_keys.NOT_IN_A_REFERENCE),
        (MEASURED, cache_keys.NOT_MEASURED),
    ],
)
def test_each_name_left_out_of_a_key_has_a_reason_and_a_test_that_it_decides_nothing(tested, left_out):
    assert set(tested) == set(left_out)
    assert all(left_out.values())


def same(before, after):
    assert before.keys() == after.keys()
    return all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


@pytest.mark.parametrize("left_out", CHECKPOINT)
def test_what_is_left_out_of_a_checkpoints_key_decides_no_byte_of_a_tensor(run, tmp_path, monkeypatch, left_out):
    def tensors(name):
        packing._make(run.model, VARIANTS["int4_group64"], tmp_path / name, "cpu")
        return load_file(tmp_path / name)

    before = tensors("before.safetensors")
    monkeypatch.setattr(*CHECKPOINT[left_out])
    assert same(before, tensors("after.safetensors"))


def test_the_forward_of_the_models_modules_which_is_left_out_too_decides_no_byte(run, tmp_path, monkeypatch):
    for disturbed in NOT_RUN["model"]:
        monkeypatch.setattr(*disturbed)
    packing._make(run.model, VARIANTS["int4_group64"], tmp_path / "after.safetensors", "cpu")
    monkeypatch.undo()
    packing._make(run.model, VARIANTS["int4_group64"], tmp_path / "before.safetensors", "cpu")
    assert same(load_file(tmp_path / "before.safetensors"), load_file(tmp_path / "after.safetensors"))


@pytest.mark.parametrize("left_out", DESCRIBED)
def test_what_is_left_out_of_the_quantize_steps_code_decides_no_figure(run, tmp_path, monkeypatch, left_out):
    def described(name):
        made = packing.make_checkpoint(run.model, VARIANTS["int4_group64"], tmp_path / name, "cpu")
        where = {"seconds", "peak_memory_bytes", "provenance", "key", "checkpoint", "checkpoint_bytes"}
        return {field: value for field, value in msgspec.to_builtins(made).items() if field not in where}

    before = described("before")
    monkeypatch.setattr(*DESCRIBED[left_out])
    assert described("after") == before


@pytest.mark.parametrize("left_out", REFERENCE)
def test_what_is_left_out_of_the_key_of_the_float32_outputs_decides_no_byte_of_them(
    run, tmp_path, monkeypatch, left_out
):
    monkeypatch.setattr(*REFERENCE[left_out])
    reference.make_reference(run.model, run.images, tmp_path, "cpu")
    (made,) = tmp_path.rglob("*.safetensors")
    assert same(load_file(run.reference.scenes[0].path), load_file(made))


def test_the_float32_outputs_are_made_without_the_defaults_of_variants_that_would_change_them():
    assert (DEFAULT.tf32, DEFAULT.autocast, DEFAULT.compile) == (False, None, False)


def figures(value):
    """A result as plain data, without records and without what other programs decide."""
    if isinstance(value, dict):
        left = {
            key: inner for key, inner in value.items() if key not in RECORDS | MACHINE and "memory_bytes" not in key
        }
        return {key: figures(inner) for key, inner in left.items()}
    return [figures(inner) for inner in value] if isinstance(value, list) else value


class Clock:
    """A clock that moves on at each look: what is timed is then how often somebody looked meanwhile."""

    def __init__(self):
        self.looks = 0

    def perf_counter(self):
        self.looks += 1
        return self.looks / 1024


def measured(run, packed, monkeypatch):
    """The figures of accuracy, of speed and of a sweep."""
    variant = VARIANTS["int4_group64"]
    for module in (timing, sweep):
        monkeypatch.setattr(module, "time", Clock())
    results = (
        accuracy.measure_accuracy(run.model, run.images, run.reference, packed, "cpu", variant.run),
        timing.measure_speed(run.images, packed, "cpu", variant.run),
        sweep.measure_sweep(run.images, packed, "cpu", variant.run, num_images=[1], repeats=6),
    )
    return [figures({name: msgspec.to_builtins(getattr(result, name)) for name in result.__struct_fields__
                     if name not in RECORDS}) for result in results]  # fmt: skip


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    return packing.make_checkpoint(run.model, VARIANTS["int4_group64"], tmp_path_factory.mktemp("cache"), "cpu")


@pytest.fixture(scope="module")
def undisturbed(run, packed):
    with pytest.MonkeyPatch.context() as patch:
        return measured(run, packed, patch)


@pytest.mark.parametrize("left_out", MEASURED)
def test_what_is_left_out_of_the_keys_of_what_is_measured_decides_no_figure(
    run, packed, undisturbed, monkeypatch, left_out
):
    for disturbed in MEASURED[left_out]:
        monkeypatch.setattr(*disturbed)
    after = measured(run, packed, monkeypatch)
    assert after == undisturbed
    accuracy_figures, speed_figures, sweep_figures = after
    assert accuracy_figures["scenes"][0]["deviation"]
    assert set(speed_figures["latencies_ms"]) == {1e3 / 1024}
    assert len(sweep_figures["sizes"][0]["latencies_ms"]) == 6
