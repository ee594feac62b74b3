"""The trained model that ships with the package, and its outlier twin."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import vggt_quant
from vggt_quant.data.scene import load_scene
from vggt_quant.data.synthetic import draw_scenes
from vggt_quant.evaluation import metrics
from vggt_quant.model import NAMED, VGGT, VGGTConfig
from vggt_quant.model.weights.outliers import FOLLOWERS, inject_outliers
from vggt_quant.model.weights.pretrained import load_state, resolve, weights_sha256

FOLDER = files("vggt_quant") / "model" / "tiny"


@pytest.fixture(scope="module")
def tiny():
    return vggt_quant.load("tiny")


@pytest.fixture(scope="module")
def twin():
    return vggt_quant.load("tiny-outliers")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folders = draw_scenes(tmp_path_factory.mktemp("rooms"), num_scenes=6, first_seed=5000)
    return [load_scene(folder, size=112) for folder in folders]


def test_it_weighs_at_most_32_mib_and_is_bfloat16():
    paths = resolve("tiny").paths
    assert sum(path.stat().st_size for path in paths) <= 32 * 2**20
    assert {tensor.dtype for tensor in load_state(resolve("tiny")).values()} == {torch.bfloat16}


def test_its_config_is_the_named_one_and_its_names_are_vggts():
    assert VGGTConfig.from_dict(json.loads((FOLDER / "config.json").read_text())) == NAMED["tiny"]
    with torch.device("meta"):
        released = set(VGGT(NAMED["vggt-1b"]).state_dict())
    assert set(load_state(resolve("tiny"))) <= released


@torch.inference_mode()
def test_it_sees_rooms_that_it_was_not_trained_on(tiny, rooms):
    judged = [
        metrics.measure(
            "truth",
            tiny(room.images),
            {
                "extrinsics": room.truth.extrinsics,
                "intrinsics": room.truth.intrinsics,
                "depths": room.truth.depths,
            },
        )
        for room in rooms
    ]

    def mean(name):
        return sum(figures[name] for figures in judged) / len(judged)

    # Six rooms; over 120 it is 0.83, 0.047, 0.96 and 0.048. Guessing gives 0.01 and 0.5.
    assert mean("pose_auc_30") > 0.7
    assert mean("depth_abs_rel") < 0.09 < 0.3 < mean("constant_depth_abs_rel")
    assert mean("depth_delta_125") > 0.9
    assert mean("point_error_of_scene_size") < 0.09


def test_the_card_quotes_the_figures_that_were_measured():
    figures = json.loads((FOLDER / "evaluation.json").read_text())["figures"]
    card = (FOLDER / "README.md").read_text()
    for name in ("pose_auc_30", "depth_abs_rel", "depth_delta_125", "point_error_of_scene_size"):
        assert f"{figures[name]['mean']:.4f} [{figures[name]['low']:.4f}, {figures[name]['high']:.4f}]" in card


@torch.inference_mode()
def test_the_twin_is_the_same_function_bit_for_bit(tiny, twin, rooms):
    expected, found = tiny(rooms[0].images), twin(rooms[0].images)
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"):
        assert torch.equal(found[name], expected[name]), name


@torch.inference_mode()
def test_the_twins_activations_are_heavy_tailed(tiny, twin, rooms):
    """Largest over median channel of what qkv and fc1 read: the figure that SmoothQuant's paper draws."""

    def tails(model):
        ratios = []

        def watch(module, inputs):
            channels = inputs[0].abs().flatten(0, -2).amax(0)
            ratios.append(float(channels.max() / channels.median()))

        layers = [m for n, m in model.aggregator.named_modules() if n.endswith(tuple(FOLLOWERS.values()))]
        hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
        model(rooms[0].images)
        for hook in hooks:
            hook.remove()
        return torch.tensor(ratios)

    before, after = tails(tiny), tails(twin)
    assert before.max() < 6, "the backbone itself has none"
    assert after.min() > 12 and after.median() > 40


def test_the_twin_is_another_model_for_the_cache():
    assert weights_sha256(resolve("tiny")) != weights_sha256(resolve("tiny-outliers"))


def test_weights_without_a_block_have_no_place_for_outliers():
    with pytest.raises(ValueError, match="no transformer block"):
        inject_outliers({"weight": torch.ones(4, 4)})


def test_other_seeds_choose_other_channels():
    state = load_state(resolve("nano-random"))
    name = "aggregator.frame_blocks.0.norm1.weight"
    one, other = (inject_outliers(state, seed=seed)[name] for seed in (1, 2))
    assert not torch.equal(one, other) and not torch.equal(one, state[name])


def test_other_weights_in_the_package_are_another_model_for_the_workflow(tmp_path):
    """In a copy of the package, since the weights have no file that a setting names."""
    copy = tmp_path / "vggt_quant"
    shutil.copytree(str(files("vggt_quant")), copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from vggt_quant.runtime import cache_keys; print(cache_keys.stage_codes({}, 'cpu')['model'])"

    def key():
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout

    before = key()
    shard = copy / "model" / "tiny" / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert key() != before


def test_the_readmes_quote_the_rounding_that_was_measured():
    root = Path(__file__).parent.parent
    measured = json.loads(
        (root / "docs" / "measurements" / "2026-11-25-tiny-round-to-nearest" / "sensitivity.json").read_text()
    )["tiny"]
    settings = ("fp32", "int8 per row", "int4 groups of 64", "int4 groups of 128", "int3 groups of 64", "int4 per row")
    for readme in ("README.md", "README.zh-CN.md"):
        rows = re.findall(r"\| (\d\.\d{3}) \| (\d\.\d{3}) \| (\d\.\d{4}) \|$", (root / readme).read_text(), re.M)
        expected = []
        for setting in settings:
            figures = measured[setting]["figures"]
            auc_30, auc_5 = (f"{figures[name]['mean']:.3f}" for name in ("pose_auc_30", "pose_auc_5"))
            expected.append((auc_30, auc_5, f"{figures['depth_abs_rel']['mean']:.4f}"))
        assert rows == expected, readme
