"""How a checkpoint is run: from the variants file through the stages, the keys and the workflow."""

import pytest
from msgspec import structs
from small_run import photos
from workflow_project import Project

from vggt_quant.benchmark.timing import measure_speed
from vggt_quant.cli import main as cli
from vggt_quant.data.prepare import prepare_model
from vggt_quant.inference.engine import UnsupportedError
from vggt_quant.quantization.make_checkpoint import make_checkpoint
from vggt_quant.results.schema import AccuracyResult, SpeedResult, read, read_outcome, write
from vggt_quant.runtime import cache_keys, provenance
from vggt_quant.variants import RunSettings, load_variants

VARIANTS = load_variants()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with images.json and the packed fp32 checkpoint's result."""
    folder = tmp_path_factory.mktemp("run")
    write(photos(folder), folder / "images.json")
    write(make_checkpoint(prepare_model("nano-random"), VARIANTS["fp32"], folder, "cpu"), folder / "packed.json")
    return folder


@pytest.mark.parametrize(
    ("variant", "way"),
    [
        ("tf32", "TF32"),
        ("bf16_autocast", "bfloat16 autocast"),
        ("bf16_compiled", "torch.compile"),
        ("sageattention", "sageattention"),
        ("int4_w4a8_attention8", "float8 attention"),
    ],
)
@pytest.mark.parametrize(("stage", "kind"), [("speed", SpeedResult), ("accuracy", AccuracyResult)])
def test_a_way_to_run_that_the_cpu_lacks_is_a_result_with_its_reason(run, tmp_path, stage, kind, variant, way):
    words = [stage, "--images", str(run / "images.json"), "--packed", str(run / "packed.json"), "--variant", variant]
    words += ["--device", "cpu", "--result", str(tmp_path / "result.json")]
    if stage == "accuracy":
        words += ["--model", "nano-random", "--cache", str(tmp_path)]
    assert cli.main(words) == 0
    result = read_outcome(kind, tmp_path / "result.json")
    assert result.outcome == "unsupported"
    assert result.error.message == f"{way} runs on cuda only, not on cpu."


def test_a_result_says_how_its_checkpoint_was_run(run, tmp_path):
    words = ["speed", "--images", str(run / "images.json"), "--packed", str(run / "packed.json"), "--variant", "fp32"]
    assert cli.main([*words, "--device", "cpu", "--result", str(tmp_path / "result.json")]) == 0
    assert read(SpeedResult, tmp_path / "result.json").run == structs.asdict(VARIANTS["fp32"].run)


def test_a_measurement_without_a_variant_runs_as_it_is_told(tmp_path):
    packed = make_checkpoint(prepare_model("nano-random"), VARIANTS["fp32"], tmp_path, "cpu")
    with pytest.raises(UnsupportedError, match="TF32"):
        measure_speed(photos(tmp_path), packed, "cpu", RunSettings(engine="plain", tf32=True))


def test_how_a_variant_is_run_is_in_the_keys_of_what_is_measured_and_in_no_checkpoints():
    plain = structs.replace(VARIANTS["bf16"], run=RunSettings(engine="plain"))
    before, after = (cache_keys.stage_codes({"bf16": variant}, "cpu") for variant in (VARIANTS["bf16"], plain))
    assert {stage for stage in before if before[stage] != after[stage]} == {"accuracy", "speed"}


def test_another_library_of_kernels_lets_all_be_measured_again_and_nothing_be_made_again(monkeypatch):
    before = cache_keys.stage_codes({"bf16": VARIANTS["bf16"]}, "cpu")
    monkeypatch.setattr(provenance, "kernel_libraries", lambda: {"flash-attn-4": "9.9"})
    after = cache_keys.stage_codes({"bf16": VARIANTS["bf16"]}, "cpu")
    assert {stage for stage in before if before[stage] != after[stage]} == {"accuracy", "speed"}


@pytest.mark.workflow
def test_the_workflow_leaves_out_what_is_no_default_until_it_is_named(tmp_path):
    cast = {"method": "cast", "dtype": "float32"}
    other = {**cast, "run": {"engine": "plain", "tf32": True}, "default": False}
    on_gpus, on_cpus = {**cast, "default": "cuda"}, {**cast, "default": "cpu"}
    project = Project(tmp_path, {"fp32": cast, "tf32": other, "fast": on_gpus, "slow": on_cpus})
    usual = project.would_run()
    assert {name for name in ("fp32", "tf32", "fast", "slow") if f"speed_{name}" in usual} == {"fp32", "slow"}
    assert "speed_tf32" in project.would_run("--config", "variants=[tf32]")
