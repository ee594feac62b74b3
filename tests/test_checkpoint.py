"""Packed checkpoints: bit-equal round trips, honest sizes, refusals in sentences."""

import copy
import json
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vggt_quant
from vggt_quant.model.weights.pretrained import load_pretrained, resolve
from vggt_quant.quantization import quantize
from vggt_quant.quantization.checkpoint import CheckpointError, load_packed, memory_bytes, read_manifest, save
from vggt_quant.quantization.formats.base import packed_layers
from vggt_quant.runtime.tensor_file import tensor_bytes
from vggt_quant.variants import load_variants

VARIANTS = {name: variant for name, variant in load_variants().items() if not variant.optional}
IMAGES = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def nano():
    return load_pretrained(resolve("nano-random"))


def packed(name):
    model = nano()
    variant = VARIANTS[name]
    quantize.run(model, variant, dtype=getattr(torch, variant.dtype))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every variant's model and its file."""
    folder = tmp_path_factory.mktemp("packed")
    made = {}
    for name in VARIANTS:
        made[name] = packed(name), folder / f"{name}.safetensors"
        save(*made[name])
    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_equal_bit_for_bit_before_and_after(saved, name):
    model, path = saved[name]
    again = vggt_quant.load(path)
    with torch.inference_mode():
        before, after = model(IMAGES), again(IMAGES)
    for key, value in before.items():
        values = zip(value, after[key], strict=True) if isinstance(value, list) else [(value, after[key])]
        assert all(torch.equal(a, b) for a, b in values), key
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_loading_never_imports_a_method(saved):
    code = f"import sys, vggt_quant; [vggt_quant.load(path) for path in {[str(path) for _, path in saved.values()]!r}]"
    code += "; sys.exit(any(m.startswith('vggt_quant.quantization.methods') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_is_as_large_as_the_memory_that_it_fills(saved, name):
    path = saved[name][1]
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    # Loaded anew: a first pass may derive some vectors more.
    assert path.stat().st_size - header == sum(tensor_bytes(path).values()) == memory_bytes(load_packed(path))


def test_sizes_shrink_as_the_bits_do(saved):
    size = {name: path.stat().st_size for name, (_, path) in saved.items()}
    assert size["int4_group128"] < size["int4_group64"] < size["int8_symmetric"] < size["bf16"] < size["fp32"]
    assert size["bf16"] == pytest.approx(size["fp32"] / 2, rel=0.05)  # both headers are of one size


@pytest.mark.parametrize("name", ["int8_symmetric", "int8_asymmetric", "int4_group128", "int4_group64"])
def test_everything_else_of_a_packed_variant_is_bfloat16(saved, name):
    model, path = saved[name]
    layers = read_manifest(path)["layers"]
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            layer, _, part = key.rpartition(".")
            if layer not in layers or part in ("bias", "weight_scale"):
                assert file.get_tensor(key).dtype == torch.bfloat16, key
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_dynamic_int8_keeps_torchs_integers_and_runs_torchs_kernel(saved):
    model, path = saved["pytorch_dynamic_int8"]
    layer = next(iter(packed_layers(load_packed(path)).values()))
    assert type(layer.linear).__module__ == "torch.ao.nn.quantized.dynamic.modules.linear"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with safe_open(path, framework="pt") as file:
        name = next(iter(read_manifest(path)["layers"]))
        assert file.get_tensor(f"{name}.weight_packed").dtype == torch.int8


def test_memory_counts_what_torch_packs_out_of_sight(saved):
    model, _ = saved["pytorch_dynamic_int8"]
    visible = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    hidden = sum(layer.num_weights for layer in packed_layers(model).values())
    assert memory_bytes(model) >= visible + hidden


def test_a_flipped_bit_is_found_and_its_tensor_named(saved, tmp_path):
    data = bytearray(saved["int8_symmetric"][1].read_bytes())
    data[-1000] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"flipped.*is damaged.*does not match its checksum"):
        load_packed(path)


def test_a_truncated_file_is_refused(saved, tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(saved["int8_symmetric"][1].read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_packed(path)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no packed checkpoint"):
        load_packed(path)
    with pytest.raises(ValueError, match="foreign"):
        vggt_quant.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_packed(tmp_path / "nothing.safetensors")


def rewrite(path, out, change, *, checksum=True):
    """Copy a checkpoint with another manifest."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    manifest = json.loads(header["__metadata__"]["vggt_quant"])
    said = manifest.pop("manifest_crc32")
    change(manifest)
    manifest["manifest_crc32"] = zlib.crc32(json.dumps(manifest, sort_keys=True).encode()) if checksum else said
    header["__metadata__"]["vggt_quant"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    out.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def first_layer(manifest):
    return next(iter(manifest["layers"].values()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(version=99), "version 99"),
        (lambda m: first_layer(m).update(format="w5a16"), "w5a16"),
        (lambda m: first_layer(m).update(in_features=7), "does not fit"),
        (lambda m: m["layers"].pop(next(iter(m["layers"]))), "does not fit"),
        (lambda m: m["crc32"].pop(next(iter(m["crc32"]))), "damaged"),
        (lambda m: m["model"].update(config=None), "holds no VGGT"),
        (lambda m: m["model"].update(config={"aggregator": {"deep": 3}}), "describes no VGGT"),
        (lambda m: m["model"].update(config="small"), "describes no VGGT"),
        (lambda m: m["model"].clear(), "holds no VGGT"),
        (lambda m: m.pop("model"), "no valid 'model'"),
        (lambda m: m.pop("layers"), "no valid 'layers'"),
        (lambda m: m.update(layers=[]), "no valid 'layers'"),
        (lambda m: m.update(aliases=None), "no valid 'aliases'"),
        (lambda m: m["aliases"].update(nothing="nowhere"), "stands for nowhere"),
        (lambda m: first_layer(m).pop("format"), "does not fit"),
        (lambda m: first_layer(m).pop("group_size"), "does not fit"),
        (lambda m: first_layer(m).update(group_size=0), "does not fit"),
        (lambda m: first_layer(m).update(group_size="128"), "does not fit"),
        (lambda m: m["layers"].update(dict.fromkeys(m["layers"], "w4a16")), "does not fit"),
    ],
)
def test_a_manifest_that_lies_is_refused(saved, tmp_path, change, words):
    out = tmp_path / "lies.safetensors"
    rewrite(saved["int4_group128"][1], out, change)
    with pytest.raises(CheckpointError, match=rf"lies\.safetensors.*{words}"):
        load_packed(out)


def test_an_edited_manifest_is_found_even_where_it_still_fits(saved, tmp_path):
    out = tmp_path / "edited.safetensors"
    rewrite(saved["int8_symmetric"][1], out, lambda m: m.update(variant={"name": "fp32"}), checksum=False)
    for load in (load_packed, vggt_quant.load):
        with pytest.raises(CheckpointError, match="manifest does not match its checksum"):
            load(out)


def test_a_packed_checkpoint_opens_by_its_folder_too(saved, tmp_path):
    shutil.copy(saved["int4_group64"][1], tmp_path / "model.safetensors")
    assert packed_layers(vggt_quant.load(tmp_path)).keys() == packed_layers(saved["int4_group64"][0]).keys()


def test_dynamic_int8_is_never_repacked_off_the_cpu(saved):
    with pytest.raises(CheckpointError, match="runs on the CPU only"):
        load_packed(saved["pytorch_dynamic_int8"][1], device="meta")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_loaded_model_saves_over_its_own_file_and_gives_the_same_bytes(saved, tmp_path, name):
    path = tmp_path / "own.safetensors"
    shutil.copy(saved[name][1], path)
    first, second = vggt_quant.load(path), vggt_quant.load(path)
    save(first, path, about={"variant": read_manifest(path)["variant"]})
    assert path.read_bytes() == saved[name][1].read_bytes()
    assert memory_bytes(first) == memory_bytes(second)
    with torch.inference_mode():
        assert torch.equal(second(IMAGES)["depth"], saved[name][0](IMAGES)["depth"])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_loaded_model_can_be_copied_and_pickled(saved, name):
    model = vggt_quant.load(saved[name][1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")  # torch's own, when it copies qint8
        copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    with torch.inference_mode():
        expected = model(IMAGES)["depth"]
        assert all(torch.equal(other(IMAGES)["depth"], expected) for other in copies)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    with pytest.raises(OSError, match="locked"):
        save(packed("bf16"), folder / "sub" / ("x" * 300 + ".safetensors"))
    assert [path for path in folder.rglob("*") if path.is_file()] == []
