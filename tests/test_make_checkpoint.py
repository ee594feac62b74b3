"""The quantize stage: what the audit says, what the cache holds, and what it does about damage."""

import dataclasses
from pathlib import Path

import pytest
import torch
from msgspec import structs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_run import nano_with

from vggt_quant.data.prepare import prepare_model
from vggt_quant.model.config import NAMED
from vggt_quant.quantization import checkpoint
from vggt_quant.quantization import make_checkpoint as packing
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results import decibels
from vggt_quant.results.schema import QuantizeResult, read, write
from vggt_quant.variants import load_variants

VARIANTS = load_variants()
PACKED = [name for name, variant in VARIANTS.items() if variant.method != "cast"]


@pytest.fixture(scope="module")
def nano():
    return prepare_model("nano-random")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_audit_counts_what_lies_in_the_file(nano, tmp_path, name):
    made = make_checkpoint(nano, VARIANTS[name], tmp_path, "cpu")
    sizes = {}
    with safe_open(made.checkpoint, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (no mapping)
            sizes[key] = file.get_tensor(key).nbytes
    assert made.weights_bytes == sum(sizes.values())
    assert 0 < made.checkpoint_bytes - sum(sizes.values()) < 1_000_000  # the header
    if name not in PACKED:
        assert made.quantized_parameters == made.quantized_share == 0
        assert made.bytes_per_quantized_weight_disk is made.bytes_per_quantized_weight_memory is None
        return
    of_weights = sum(size for key, size in sizes.items() if ".weight_" in key)
    assert made.bytes_per_quantized_weight_disk == of_weights / made.quantized_parameters
    assert made.bytes_per_quantized_weight_memory == made.bytes_per_quantized_weight_disk
    assert made.quantized_share == made.quantized_parameters / nano.num_parameters
    assert made.formats["dense"] == len(made.kept)


def test_a_second_run_finds_the_first_ones_checkpoint(nano, tmp_path):
    first = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    written = Path(first.checkpoint).stat().st_mtime_ns
    second = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    assert (first.cached, second.cached) == (False, True)
    assert structs.replace(second, cached=False) == first
    assert Path(first.checkpoint).stat().st_mtime_ns == written


@pytest.mark.parametrize("name", VARIANTS)
def test_figures_of_a_checkpoint_in_the_cache_are_those_of_the_one_just_made(nano, tmp_path, name):
    first = make_checkpoint(nano, VARIANTS[name], tmp_path, "cpu")
    again = make_checkpoint(nano, VARIANTS[name], tmp_path, "cpu")
    assert again.cached and structs.replace(again, cached=False) == first


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ((checkpoint, "memory_bytes", lambda _: 7), "weights_bytes"),
        ((packing, "_is_weight_of", lambda *_: False), "bytes_per_quantized_weight_disk"),
        ((packing, "tensor_bytes", lambda _: {}), "bytes_per_quantized_weight_disk"),
        ((packing, "_count_formats", lambda *_: {"w4a16": 7}), "formats"),
    ],
)
def test_a_corrected_figure_arrives_though_the_checkpoint_lies_in_the_cache(nano, tmp_path, monkeypatch, place, field):
    before = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    monkeypatch.setattr(*place)
    after = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    assert after.cached
    assert getattr(after, field) != getattr(before, field)
    assert structs.replace(after, cached=False, **{field: getattr(before, field)}) == before


def test_a_checkpoint_whose_sqnr_other_code_computed_is_made_again_with_the_same_tensors(
    nano, tmp_path, monkeypatch, caplog
):
    first = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    tensors = load_file(first.checkpoint)
    monkeypatch.setattr(packing, "_sqnr_code", lambda: "of today")
    monkeypatch.setattr(decibels, "sqnr_db", lambda *_: 1.5)
    again = make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu")
    assert not again.cached and again.checkpoint == first.checkpoint
    assert "other code computed the SQNR of its weights" in caplog.text
    assert again.weight_sqnr_db_median == 1.5 != first.weight_sqnr_db_median
    after = load_file(again.checkpoint)
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())
    assert make_checkpoint(nano, VARIANTS["int4_group64"], tmp_path, "cpu").cached


def test_variants_that_are_only_run_differently_share_a_checkpoint(nano, tmp_path):
    first, second = (make_checkpoint(nano, VARIANTS[name], tmp_path, "cpu") for name in ("fp32", "bf16_autocast"))
    assert (first.cached, second.cached) == (False, True)
    assert second.checkpoint == first.checkpoint
    assert (first.variant, second.variant) == ("fp32", "bf16_autocast")


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b""])
def test_a_damaged_checkpoint_in_the_cache_is_made_again(nano, tmp_path, caplog, damage):
    first = make_checkpoint(nano, VARIANTS["int8_symmetric"], tmp_path, "cpu")
    path = Path(first.checkpoint)
    path.write_bytes(damage(path.read_bytes()))
    again = make_checkpoint(nano, VARIANTS["int8_symmetric"], tmp_path, "cpu")
    assert not again.cached
    assert f"Making {first.checkpoint} again" in caplog.text
    checkpoint.check(first.checkpoint)


def test_a_checkpoint_with_a_result_of_another_schema_is_made_again(nano, tmp_path):
    first = make_checkpoint(nano, VARIANTS["bf16"], tmp_path, "cpu")
    model = checkpoint.load_packed(first.checkpoint)
    checkpoint.save(
        model,
        first.checkpoint,
        about={"making": {"seconds": 1.0, "colour": "red"}, "kept": {}, "sqnr_code": packing._sqnr_code()},
    )
    assert not make_checkpoint(nano, VARIANTS["bf16"], tmp_path, "cpu").cached
    save_file({"a": torch.zeros(1)}, first.checkpoint)
    assert not make_checkpoint(nano, VARIANTS["bf16"], tmp_path, "cpu").cached


def test_the_same_weights_under_another_config_are_another_checkpoint(tmp_path):
    """A file's hash does not say what its numbers mean: here, that the depth head has another activation."""
    plain = nano_with(tmp_path / "a", lambda state: None)
    inverse = dataclasses.replace(NAMED["nano"].depth_head, activation="inv_log")
    other = nano_with(tmp_path / "b", lambda state: None, depth_head=inverse)
    assert plain.weights_sha256 == other.weights_sha256
    paths = [make_checkpoint(model, VARIANTS["bf16"], tmp_path, "cpu").checkpoint for model in (plain, other)]
    assert [checkpoint.load_packed(path).config.depth_head.activation for path in paths] == ["exp", "inv_log"]


def test_weights_of_zeros_give_a_result_that_json_can_hold(tmp_path):
    """Their signal-to-noise ratio is infinite, and JSON has no word for that."""

    def no_weights(state):
        for tensor in state.values():
            if tensor.ndim == 2:
                tensor.zero_()

    made = make_checkpoint(nano_with(tmp_path / "zeros", no_weights), VARIANTS["int8_symmetric"], tmp_path, "cpu")
    assert made.weight_sqnr_db_median is made.weight_sqnr_db_min is None
    write(made, tmp_path / "made.json")
    assert read(QuantizeResult, tmp_path / "made.json") == made
