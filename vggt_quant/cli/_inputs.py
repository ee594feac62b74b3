"""Read the inputs of a step: each is a result file or the thing itself. Imports torch.

`--model` takes model.json or a model name, `--images` images.json or a folder, `--packed` a result or a checkpoint.
"""

import contextlib
import logging
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vggt_quant.cli._packed import refuse_packed
from vggt_quant.data import prepare
from vggt_quant.model import VGGTConfig
from vggt_quant.quantization import checkpoint, made_by
from vggt_quant.results.scenes_in_words import scenes_in_words
from vggt_quant.results.schema import (
    Error,
    Failed,
    ImagesResult,
    ModelResult,
    Packed,
    PackedFile,
    QuantizeResult,
    ReferenceResult,
    Unsupported,
    read,
    read_outcome,
)
from vggt_quant.variants import RunSettings, find_variant

log = logging.getLogger(__name__)


def model(value: str) -> ModelResult:
    """The model of a name or of model.json."""
    if value.endswith(".json"):
        return read(ModelResult, value)
    refuse_packed(value)
    return prepare.prepare_model(value)


@contextlib.contextmanager
def photos(args: Namespace, config: dict[str, Any], max_scenes: int | None = None) -> Iterator[ImagesResult]:
    """The preprocessed scenes: those of a result, or a folder's, at the size that the model's configuration says."""
    if args.images.endswith(".json"):
        yield read(ImagesResult, args.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = VGGTConfig.from_dict(config).img_size
        tensors = Path(folder) / "images"
        result = prepare.prepare_images(args.images, tensors, size=size, mode="crop", max_scenes=max_scenes)
        log.info("%s", scenes_in_words(result))
        yield result


@contextlib.contextmanager
def cache(args: Namespace) -> Iterator[Path]:
    """The folder of `--cache`, or one for this time only."""
    if args.cache:
        yield args.cache
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def packed(args: Namespace) -> QuantizeResult | PackedFile | Unsupported | Failed:
    """A packed checkpoint, by the result of its step or by itself; or why there is none.

    It is called by the variant of `--variant` if that has the same tensors, else by the one in its header, or else by
    its file's name.
    """
    path: Path = args.packed
    if path.suffix == ".json":
        made = read_outcome(QuantizeResult, path)
        if isinstance(made, QuantizeResult):
            _expect_cached(made.checkpoint, path)
        return made
    header = checkpoint.read_manifest(path).get("variant") or {}
    asked = find_variant(args.variant, args.variants_file) if args.variant else None
    is_same = asked is not None and asked.spec().items() <= header.items()
    name = args.variant if is_same else header.get("name", path.stem)
    return PackedFile(variant=name, checkpoint=str(path.absolute()))


def config_of(path: str) -> dict[str, Any]:
    """The sizes of the model in a packed checkpoint.

    Raises:
        ValueError: It is no VGGT, so photos say nothing to it.
    """
    config: dict[str, Any] | None = checkpoint.read_manifest(path)["model"].get("config")
    if config is None:
        raise ValueError(f"{path} holds another model than VGGT, which cannot be run on photos; measure it in Python.")
    return config


def reference(path: Path) -> ReferenceResult:
    """The fp32 outputs of reference.json, all of them still there."""
    made = read(ReferenceResult, path)
    for scene in made.scenes:
        _expect_cached(scene.path, path)
    return made


def run_settings(args: Namespace, packed: Packed) -> RunSettings:
    """How to run a checkpoint: as `--variant` says; without it, as the variant that it was made for.

    Variants that are only run differently share a file in the cache, so a result's name comes before the header's.
    """
    if args.variant:
        return find_variant(args.variant, args.variants_file).run
    made = checkpoint.read_manifest(packed.checkpoint).get("variant") or {}
    if isinstance(packed, QuantizeResult) and (made.get("name") != packed.variant or "run" not in made):
        return find_variant(packed.variant, args.variants_file).run
    return made_by.run_of(made, f"{packed.checkpoint}: variant")


def prepared_folder(args: Namespace) -> Path:
    """The folder for preprocessed scenes: next to the result file, else a temporary one that stays."""
    result: Path | None = args.result
    return result.with_name(f"{result.stem}_prepared") if result else Path(tempfile.mkdtemp()) / args.command


def image_settings(args: Namespace) -> dict[str, Any]:
    """How scenes are to be prepared, by the flags and the model's own size."""
    config = VGGTConfig.from_dict(model(args.model).config) if args.model else VGGTConfig()
    limits = {"max_images": args.max_images, "max_scenes": args.max_scenes}
    return {"size": config.img_size, "mode": args.image_mode, **limits}


def log_scenes(result: ImagesResult) -> ImagesResult:
    """Say what was found, which photo comes first, and what was skipped."""
    log.info("%s, first %s", scenes_in_words(result), Path(result.scenes[0].paths[0]).name)
    for skipped in [skipped for scene in result.scenes for skipped in scene.skipped]:
        log.warning("skipped %s: %s", skipped.path, skipped.reason)
    return result


def _expect_cached(file: str, result: Path) -> None:
    if not Path(file).is_file():
        raise ValueError(f"The cached file {file} is missing; delete {result} and run again to make it again.")


def unsupported(variant: str, stage: str, reason: Exception) -> Unsupported:
    """The result "not supported here"."""
    error = Error(stage=stage, kind="unsupported", message=str(reason), traceback=None, exit_code=0)
    return Unsupported(variant=variant, error=error)
