"""Realistic results for tests: a run of VGGT-1B on one GPU in which one variant failed and one is unsupported."""

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from vggt_quant.evaluation import metrics
from vggt_quant.results.metric import Figures
from vggt_quant.results.scene_schema import (
    OutputInfo,
    SceneAccuracy,
    SceneImages,
    SceneReference,
    SkippedImage,
    TensorError,
)
from vggt_quant.results.schema import (
    AccuracyResult,
    Error,
    ImagesResult,
    ModelResult,
    Provenance,
    QuantizeResult,
    ReferenceResult,
    SpeedResult,
    Status,
    Unsupported,
    as_text,
    write,
)

METRICS = metrics.described()
GPU = "NVIDIA H100 80GB HBM3"
CPU = "Intel(R) Xeon(R) Platinum 8480+"
CREATED = "2025-11-23T21:30:00+00:00"
NUM_PARAMETERS = 1_256_537_430
FP32_BYTES = 5_026_149_720

# variant: checkpoint bytes, median ms, IQR ms, peak memory bytes, depth AbsRel, rotation error in degrees, worst SQNR
FINISHED = {
    "fp32": (FP32_BYTES, 401.3, 1.9, 9_912_000_000, 0.0, 0.0, None),
    "bf16": (2_513_074_860, 96.4, 0.8, 5_103_000_000, 0.00131, 0.0114, 41.2),
    "int8_symmetric": (1_304_000_000, 81.7, 2.6, 3_811_000_000, 0.00212, 0.0247, 35.9),
    "int8_asymmetric": (1_309_000_000, 82.9, 2.4, 3_815_000_000, 0.00198, 0.0231, 36.4),
    "int4_group128": (853_000_000, 88.2, 1.1, 3_290_000_000, 0.0187, 0.342, 19.8),
    "int4_group64": (896_000_000, 90.6, 1.3, 3_331_000_000, 0.0141, 0.281, 21.7),
}
ON_CPU = {"pytorch_dynamic_int8": (1_312_000_000, 14210.0, 310.0, 6_120_000_000, 0.00843, 0.0912, 28.3)}
VARIANTS = ["fp32", "bf16", "pytorch_dynamic_int8", *list(FINISHED)[2:], "fp8", "gptq_int4"]

MODEL = ModelResult(
    name="facebook/VGGT-1B",
    label="VGGT-1B",
    random_weights=False,
    weights_sha256="0" * 64,
    num_parameters=NUM_PARAMETERS,
    config={"embed_dim": 1024},
    revision="860abec7937d",
)
RANDOM_MODEL = replace(MODEL, name="tiny", label="random weights (seed 0)", random_weights=True)
SCENE = SceneImages(
    name="cake",
    kind="photos",
    folder="photos/cake",
    paths=["a.jpg", "b.jpg"],
    skipped=[SkippedImage(path="c.gif", reason="not a photo")],
    shape=[8, 3, 350, 518],
    path="results/images/cake.safetensors",
    tensor_sha256="1" * 64,
    image_sha256=["2" * 64, "3" * 64],
    truth=[],
    unit=None,
)
IMAGES = ImagesResult(folder="photos/cake", mode="crop", scenes=[SCENE])
KNOWN_SCENES = ("courtyard", "delivery_area", "facade", "kicker", "office", "terrace")

# variant: how much worse than fp32 in each of the known scenes
WORSE = {
    "fp32": (0, 0, 0, 0, 0, 0),
    "bf16": (0.002, -0.001, 0.001, -0.002, 0.001, -0.001),
    "int8_symmetric": (0.003, -0.004, 0.002, -0.001, 0.003, -0.002),
    "int8_asymmetric": (-0.003, 0.004, 0.001, -0.002, 0.002, -0.003),
    "int4_group128": (0.03, 0.05, 0.02, 0.04, 0.03, 0.06),
    "int4_group64": (0.01, 0.03, 0.01, 0.02, 0.02, 0.03),
    "pytorch_dynamic_int8": (0.01, 0.02, 0.005, 0.02, 0.01, 0.01),
}


def provenance(device: str = "cuda", created: str = CREATED) -> Provenance:
    is_gpu = device == "cuda"
    return Provenance(
        package_version="0.1.0",
        commit="032a6961d61454b782c0437aabbccddeeff00112",
        python="3.12.3",
        torch="2.11.0",
        device=device,
        device_name=GPU if is_gpu else CPU,
        device_capability="9.0" if is_gpu else None,
        cuda="13.0" if is_gpu else None,
        driver="580.65.06" if is_gpu else None,
        cpu_threads=16,
        created=created,
    )


def reference() -> ReferenceResult:
    outputs = {"depth": OutputInfo(type="tensor", shape=[1, 8, 350, 518, 1], dtype="float32")}
    scene = SceneReference(scene="cake", key="k", path="reference.safetensors", cached=False)
    return ReferenceResult(scenes=[scene], outputs=outputs, seconds=3.2, provenance=provenance())


def error(stage: str, message: str, kind: Any = "exception", exit_code: int | None = 1) -> Error:
    return Error(stage=stage, kind=kind, message=message, traceback=None, exit_code=exit_code)


def quantize(variant: str, size: int = 1_304_000_000, **changes: Any) -> QuantizeResult:
    share = 0.0 if variant in ("fp32", "bf16") else 0.964
    result = QuantizeResult(
        variant=variant,
        spec={"method": "rtn", "config": {"format": "w8a16"}},
        key="abc",
        checkpoint=f"checkpoints/{variant}.safetensors",
        cached=False,
        checkpoint_bytes=size,
        weights_bytes=size - 4096,
        num_parameters=NUM_PARAMETERS,
        quantized_parameters=int(share * NUM_PARAMETERS),
        quantized_share=share,
        bytes_per_quantized_weight_memory=1.03 if share else None,
        bytes_per_quantized_weight_disk=1.03 if share else None,
        formats={"w8a16": 288} if share else {},
        kept=[],
        weight_sqnr_db_median=38.1 if share else None,
        weight_sqnr_db_min=33.4 if share else None,
        seconds=12.5,
        peak_memory_bytes=size + 10**9,
        provenance=provenance(),
    )
    return replace(result, **changes)


def scene(abs_rel: float | None, rotation: float | None, sqnr: float | None, **changes: Any) -> SceneAccuracy:
    is_identical = abs_rel == 0
    depth = TensorError(
        shape=[1, 8, 350, 518, 1], dtype="float32", mae=abs_rel, sqnr_db=sqnr, identical=is_identical, cosine=0.999
    )
    pose = TensorError(
        shape=[1, 8, 9],
        dtype="float32",
        mae=rotation,
        sqnr_db=None if sqnr is None else sqnr + 6,
        identical=is_identical,
    )
    result = SceneAccuracy(
        scene="cake",
        num_images=8,
        outputs={"depth": depth, "pose_enc": pose},
        notes=["images: the input echoed, not compared"],
        deviation=dict.fromkeys(METRICS["deviation"])
        | {
            "rotation_error_deg_mean": rotation,
            "rotation_error_deg_max": rotation,
            "depth_abs_rel": abs_rel,
            "depth_delta_125": 1.0 if abs_rel is not None else None,
        },
        truth=None,
        truth_unit=None,
    )
    return replace(result, **changes)


def truth(worse: float, place: int = 0) -> Figures:
    """A scene judged by its truth; `place` makes scenes differ from each other, `worse` variants."""
    return dict.fromkeys(METRICS["truth"]) | {
        "num_pairs": 28,
        "pose_auc_30": 0.86 - 0.03 * place - worse,
        "pose_auc_5": 0.52 - 0.05 * place - 2 * worse,
        "rra_30": 0.99,
        "rotation_error_deg_median": 1.2 + worse,
        "depth_abs_rel": 0.051 + 0.006 * place + worse,
        "depth_delta_125": 0.96 - 0.01 * place - worse,
        "depth_valid_share": 0.8,
        "constant_depth_abs_rel": 0.41 + 0.02 * place,
        "point_error_of_scene_size": 0.043 + 0.004 * place + worse / 2,
        "cloud_overall_mean": 0.12 + 0.01 * place + worse,
        "cloud_normal_consistency_mean": 0.87 - worse,
    }


def accuracy(variant: str, scenes: list[SceneAccuracy], **changes: Any) -> AccuracyResult:
    result = AccuracyResult(
        variant=variant,
        label="VGGT-1B",
        run={},
        metrics=METRICS,
        scenes=scenes,
        note=None,
        provenance=provenance(),
    )
    return replace(result, **changes)


def speed(
    variant: str, median: float, iqr: float, peak: int = 10**9, device: str = "cuda", **changes: Any
) -> SpeedResult:
    result = SpeedResult(
        variant=variant,
        run={},
        shape=[1, 8, 3, 350, 518],
        compute_dtype="bfloat16",
        kernels={"w8a16": "torch._weight_int8pack_mm"},
        warmup_runs=3,
        latencies_ms=[median - iqr / 2, median, median + iqr / 2],
        latency_ms_median=median,
        latency_ms_iqr=iqr,
        load_seconds=2.0,
        weights_bytes=1_303_995_904,
        checkpoint_bytes=1_304_000_000,
        peak_memory_bytes=peak,
        peak_memory_kind="cuda allocator" if device == "cuda" else "resident set",
        resident_before_bytes=500_000_000,
        other_processor_share=0.01,
        note=None,
        provenance=provenance(device),
    )
    return replace(result, **changes)


def status(stage: str, variant: str | None, failure: Error | None, created: str = CREATED, **changes: Any) -> Status:
    outcome = "ok" if failure is None else "unsupported" if failure.kind == "unsupported" else "failed"
    result = Status(
        stage=stage,
        variant=variant,
        outcome=outcome,
        error=failure,
        seconds=1.0,
        command=["vggt-quant", stage],
        created=created,
    )
    return replace(result, **changes)


def write_variant(results: Path, variant: str, values: tuple, device: str = "cuda") -> None:
    """The three result files of a variant that finished."""
    size, median, iqr, peak, abs_rel, rotation, sqnr = values
    write(quantize(variant, size), results / "quantize" / f"{variant}.json")
    write(accuracy(variant, [scene(abs_rel, rotation, sqnr)]), results / "accuracy" / f"{variant}.json")
    write(speed(variant, median, iqr, peak, device), results / "speed" / f"{variant}.json")


def write_shared(results: Path, model: ModelResult = MODEL) -> None:
    """The files of the steps that belong to no variant."""
    write(model, results / "model.json")
    write(IMAGES, results / "images.json")
    write(reference(), results / "reference.json")


def write_run(folder: Path, model: ModelResult = MODEL) -> tuple[Path, Path, list[str]]:
    """A whole run: all of `VARIANTS`, of which `fp8` is unsupported and `gptq_int4` was killed."""
    results, logs = folder / "results", folder / "logs"
    write_shared(results, model)
    for variant, values in FINISHED.items():
        write_variant(results, variant, values)
    for variant, values in ON_CPU.items():
        write_variant(results, variant, values, device="cpu")
    unsupported = error("quantize", "fp8 needs compute capability 8.9, this GPU has 8.0", "unsupported", 0)
    write(Unsupported(variant="fp8", error=unsupported), results / "quantize" / "fp8.json")
    killed = error("quantize", "killed by signal 9 (SIGKILL), probably out of memory", "signal", 137)
    write(status("quantize", "gptq_int4", killed), logs / "quantize" / "quantize_gptq_int4.status.json")
    return results, logs, VARIANTS


def write_known_run(folder: Path, num_scenes: int = 6, model: ModelResult = MODEL) -> tuple[Path, Path, list[str]]:
    """The same run on scenes with ground truth: 8 bits lose nothing but noise, 4 bits lose in every scene."""
    results, logs, variants = write_run(folder, model)
    names = KNOWN_SCENES[:num_scenes]
    known = {"kind": "eth3d", "truth": ["poses", "intrinsics", "depth"], "unit": "metre"}
    scenes = [replace(SCENE, name=name, folder=f"eth3d/{name}", **known) for name in names]
    write(replace(IMAGES, folder="eth3d", scenes=scenes), results / "images.json")
    for variant, values in {**FINISHED, **ON_CPU}.items():
        *_, abs_rel, rotation, sqnr = values
        rows = [
            scene(abs_rel, rotation, sqnr, scene=name, truth=truth(worse, place), truth_unit="metre")
            for place, (name, worse) in enumerate(zip(names, WORSE[variant], strict=False))
        ]
        write(accuracy(variant, rows), results / "accuracy" / f"{variant}.json")
    return results, logs, variants


def as_json(result: Any) -> Any:
    """What a program that reads the file sees."""
    return json.loads(as_text(result))
