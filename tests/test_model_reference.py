"""VGGT against the original's values.

`golden/` travels with the repository; the whole reference, when it lies beside the checkout, is judged by its own
program.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import reference_adapter
from reference_adapter import as_tensor, worst_deviation
from safetensors.torch import load
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
GOLDEN_DENSE_STRIDE = 3
DENSE_KEYS = ("depth", "depth_conf", "world_points", "world_points_conf", "world_points_from_depth")
UNITS = json.loads((GOLDEN / "units.json").read_text())


def golden_tensors(name: str) -> dict[str, Tensor]:
    return load(gzip.decompress((GOLDEN / name).read_bytes()))


@pytest.fixture(scope="module")
def golden_scene() -> dict[str, Tensor]:
    return golden_tensors("tiny_conv_scene.safetensors.gz")


@pytest.fixture(scope="module")
def observed(golden_scene: dict[str, Tensor]) -> dict[str, Tensor]:
    config = json.loads((GOLDEN / "tiny_conv.json").read_text())
    model = reference_adapter.build_model(config, golden_tensors("tiny_conv_weights.safetensors.gz"))
    images = golden_scene["in.images_u8"].float() / 255
    found = reference_adapter.observe(model, images, golden_scene["in.query_points"])
    for name in DENSE_KEYS:
        found[name] = found[name][:, :, ::GOLDEN_DENSE_STRIDE, ::GOLDEN_DENSE_STRIDE]
    return {name: as_tensor(value) for name, value in found.items()}


def golden_output_names() -> list[str]:
    outputs = ("pose_enc", "pose_enc_list", "pose_enc_roundtrip", "extrinsic", "intrinsic", *DENSE_KEYS)
    tokens = ("mid.patch_tokens", "mid.tokens_2", "mid.tokens_4")
    return [*tokens, *(f"out.{name}" for name in (*outputs, "track", "track_list", "vis", "conf"))]


@pytest.mark.parametrize("name", golden_output_names())
def test_a_small_vggt_gives_the_originals_values(
    name: str, observed: dict[str, Tensor], golden_scene: dict[str, Tensor]
) -> None:
    # Seven times what threads, instruction sets and attention backends change; tracks amplify it over iterations.
    tolerance = 1e-3 if name in ("out.track", "out.track_list", "out.vis", "out.conf") else 5e-5
    assert worst_deviation(observed[name.removeprefix("out.")], golden_scene[name]) <= tolerance


def test_every_golden_value_is_compared(golden_scene: dict[str, Tensor]) -> None:
    assert {name for name in golden_scene if not name.startswith("in.")} == set(golden_output_names())


@pytest.fixture(scope="module")
def unit_tensors() -> dict[str, Tensor]:
    return golden_tensors("units.safetensors.gz")


@pytest.mark.parametrize("name", UNITS)
def test_each_small_function_gives_the_originals_values(name: str, unit_tensors: dict[str, Tensor]) -> None:
    unit = UNITS[name]
    inputs = {key: unit_tensors[f"{name}.in.{key}"].numpy().copy() for key in unit["inputs"]}
    outputs = reference_adapter.units(name, unit["params"], inputs)
    assert outputs is not None, f"the adapter knows no unit {name}"
    # The tracker's embedding takes sines of angles of thousands of radians, where float32 has few digits left.
    tolerance = 2e-3 if name == "track_flow_embedding" else 1e-5
    for key in unit["outputs"]:
        assert worst_deviation(outputs[key], unit_tensors[f"{name}.out.{key}"]) <= tolerance, key


def test_the_state_dict_of_vggt_1b_has_the_checkpoints_names_and_shapes() -> None:
    lines = gzip.decompress((GOLDEN / "vggt_1b_state_dict.tsv.gz").read_bytes()).decode().splitlines()
    rows = (line.split("\t") for line in lines)
    wanted = {name: tuple(int(size) for size in shape.split("x")) for name, shape in rows}
    assert len(wanted) == 1797
    assert reference_adapter.state_dict() == wanted


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the whole reference data is not beside this checkout")
def test_the_whole_reference_passes_its_own_judge() -> None:
    adapter = Path(__file__).with_name("reference_adapter.py")
    functions = {"--impl": "forward", "--units": "units", "--preprocess": "preprocess", "--state-dict": "state_dict"}
    options = [part for option, name in functions.items() for part in (option, f"{adapter}:{name}")]
    command = [sys.executable, str(REFERENCE / "check_reference.py"), *options]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    failures = [line for line in judged.stdout.splitlines() if "FAIL" in line or "MISSING" in line]
    assert judged.returncode == 0, "\n".join([*failures, judged.stderr])
    assert "0 units skipped" in judged.stdout
