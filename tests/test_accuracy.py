"""Accuracy: every output of every scene compared with fp32, and with the truth where it is known; bad outputs a row."""

import math

import pytest
import torch
from msgspec.structs import replace
from small_run import known_scenes, nano_with, photos

from vggt_quant.benchmark.timing import measure_speed
from vggt_quant.data.prepare import prepare_model
from vggt_quant.evaluation.accuracy import compare, measure_accuracy
from vggt_quant.evaluation.reference import make_reference
from vggt_quant.quantization import checkpoint
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results.schema import AccuracyResult, read, write
from vggt_quant.variants import load_variants

VARIANTS = load_variants()
HEADS = ("camera_head", "depth_head", "point_head", "track_head")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return known_scenes(tmp_path_factory.mktemp("known"), "court", "tower")


def measured(model, images, cache, name):
    packed = make_checkpoint(model, VARIANTS[name], cache, "cpu")
    reference = make_reference(model, images, cache, "cpu")
    return measure_accuracy(model, images, reference, packed, "cpu")


def test_fp32_equals_its_reference_bit_for_bit(images, tmp_path):
    result = measured(prepare_model("nano-random"), images, tmp_path, "fp32")
    scene = result.scenes[0]
    assert set(scene.outputs) == {"pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"}
    assert all(error.identical and error.mae == 0 for error in scene.outputs.values())
    assert scene.deviation["depth_abs_rel"] == scene.deviation["rotation_error_deg_max"] == 0
    assert [note.split(":")[0] for note in scene.notes] == ["images", "pose_enc_list"]
    assert result.label.startswith("random weights")
    assert scene.truth is None, "nothing is known of plain photos"


def test_every_scene_has_a_row_with_its_deviation_and_its_truth(known, tmp_path):
    result = measured(prepare_model("nano-random"), known, tmp_path, "int8_symmetric")
    assert [scene.scene for scene in result.scenes] == ["court", "tower"]
    for scene in result.scenes:
        assert 0 < scene.deviation["depth_abs_rel"] < scene.truth["depth_abs_rel"]
        assert all(value is not None for value in scene.truth.values())
        assert (scene.truth_unit, scene.truth["num_pairs"], scene.truth["depth_valid_share"]) == ("metre", 1, 1.0)
    fp32 = measured(prepare_model("nano-random"), known, tmp_path, "fp32")
    for scene, unquantized in zip(result.scenes, fp32.scenes, strict=True):
        assert scene.truth["depth_abs_rel"] != unquantized.truth["depth_abs_rel"], "its own outputs are judged"
    assert result.scenes[0].truth["constant_depth_abs_rel"] != result.scenes[1].truth["constant_depth_abs_rel"]
    write(result, tmp_path / "result.json")
    assert read(AccuracyResult, tmp_path / "result.json") == result


def test_scenes_in_another_order_than_their_reference_are_never_compared(known, tmp_path):
    nano = prepare_model("nano-random")
    packed = make_checkpoint(nano, VARIANTS["fp32"], tmp_path, "cpu")
    reference = make_reference(nano, known, tmp_path, "cpu")
    turned = replace(reference, scenes=reference.scenes[::-1])
    with pytest.raises(AssertionError, match="the same order"):
        measure_accuracy(nano, known, turned, packed, "cpu")


@pytest.mark.parametrize("name", ["int4_group128", "pytorch_dynamic_int8"])
def test_a_packed_variant_has_every_figure_and_a_result_that_json_can_hold(images, tmp_path, name):
    result = measured(prepare_model("nano-random"), images, tmp_path, name)
    scene = result.scenes[0]
    for output, error in scene.outputs.items():
        figures = [error.mae, error.mse, error.max_abs, error.psnr_db, error.cosine, error.sqnr_db]
        assert all(math.isfinite(figure) for figure in figures), output
        assert error.mae > 0 and error.error is None and not error.identical
    assert scene.outputs["depth"].ssim < 1
    assert scene.deviation["rotation_error_deg_mean"] > 0 and scene.deviation["depth_abs_rel"] > 0
    write(result, tmp_path / "result.json")
    assert read(AccuracyResult, tmp_path / "result.json") == result


@pytest.mark.parametrize("absent", [HEADS[:1], HEADS[1:2], HEADS[2:3], HEADS[3:], HEADS[:3]])
def test_a_model_without_some_heads_goes_through_every_stage(known, tmp_path, absent):
    model = nano_with(tmp_path / "model", lambda state: None, **dict.fromkeys(absent))
    images = replace(known, scenes=known.scenes[:1])
    scene = measured(model, images, tmp_path, "int8_symmetric").scenes[0]
    assert ("camera_head" in absent) == (scene.truth["pose_auc_30"] is None)
    assert ("depth_head" in absent) == (scene.truth["depth_abs_rel"] is None)
    assert ("point_head" in absent) == (scene.truth["point_error_of_scene_size"] is None)
    assert bool({"camera_head", "depth_head"} & set(absent)) == (scene.truth["cloud_overall_mean"] is None)
    assert (
        ("pose_enc" in scene.outputs)
        == ("camera_head" not in absent)
        == (scene.deviation["rotation_error_deg_mean"] is not None)
    )
    assert ("depth" in scene.outputs) == ("depth_head" not in absent) == (scene.deviation["depth_abs_rel"] is not None)
    assert ("world_points" in scene.outputs) == ("point_head" not in absent)
    speed = measure_speed(images, make_checkpoint(model, VARIANTS["int8_symmetric"], tmp_path, "cpu"), "cpu")
    assert speed.latency_ms_median > 0


def test_outputs_that_are_not_finite_are_a_row_with_an_error(images, tmp_path):
    nano = prepare_model("nano-random")
    packed = make_checkpoint(nano, VARIANTS["int8_symmetric"], tmp_path, "cpu")
    model = checkpoint.load_packed(packed.checkpoint)
    for head in (model.depth_head, model.camera_head):
        next(head.parameters()).fill_(torch.nan)
    checkpoint.save(model, tmp_path / "nan.safetensors")
    broken = replace(packed, checkpoint=str(tmp_path / "nan.safetensors"))
    result = measure_accuracy(nano, images, make_reference(nano, images, tmp_path, "cpu"), broken, "cpu")
    scene = result.scenes[0]
    assert "not finite" in scene.outputs["depth"].error
    assert "not finite" in scene.outputs["pose_enc"].error
    assert scene.deviation["depth_abs_rel"] is scene.deviation["rotation_error_deg_mean"] is None
    assert scene.outputs["world_points"].error is None
    write(result, tmp_path / "result.json")


def test_another_shape_or_type_is_a_row_or_a_note():
    reference = {"depth": torch.ones(1, 2, 8, 8, 1), "pose_enc": torch.ones(1, 2, 9), "extra": torch.ones(2)}
    outputs = {"depth": torch.ones(1, 2, 8, 9, 1), "pose_enc": torch.ones(1, 3, 9), "extra": [torch.ones(2)]}
    scene = compare("room", reference, {**outputs, "new": torch.ones(1)}, num_images=2)
    assert "[1, 2, 8, 9, 1]" in scene.outputs["depth"].error
    assert "[1, 3, 9]" in scene.outputs["pose_enc"].error
    assert scene.deviation["depth_abs_rel"] is scene.deviation["rotation_error_deg_mean"] is None
    assert scene.notes == [
        "extra: a tensor in the reference, a list in the variant, not compared",
        "new: missing in the reference",
    ]
