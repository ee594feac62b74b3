"""The schema of one scene in result files: photos, fp32 outputs, deviations from fp32 and from the ground truth.

`schema` reads and writes the files.
"""

from typing import Literal

from vggt_quant.results.metric import Figures
from vggt_quant.results.record import Record

TruthPart = Literal["poses", "intrinsics", "depth"]


class SkippedImage(Record, frozen=True, kw_only=True):
    """A file that looked like an image and was not used."""

    path: str
    reason: str


class SceneImages(Record, frozen=True, kw_only=True):
    """Photos of one scene, as the model sees them, and what is known of them."""

    name: str
    kind: str
    """The layout of the folder, as the files in `data/scenes` name them; `photos` are without ground truth."""
    folder: str
    paths: list[str]
    skipped: list[SkippedImage]
    shape: list[int]
    """Shape of the tensor that the model sees: [images, 3, height, width]."""
    path: str
    """A safetensors file: the tensor `images`, and those of the ground truth as `scenes.store_truth` names them."""
    tensor_sha256: str
    """Of the values of `images`."""
    image_sha256: list[str]
    """Of each photo's file, so that a photo is known again in another scene."""
    truth: list[TruthPart]
    """What is known, at least of some photos."""
    unit: str | None
    """Of true depths and translations, `metre` or `unknown`; null without ground truth."""


class OutputInfo(Record, frozen=True, kw_only=True):
    """One entry of the model's output dictionary."""

    type: str
    shape: list[int] | None
    dtype: str | None


class SceneReference(Record, frozen=True, kw_only=True):
    """One scene's fp32 outputs in the cache."""

    scene: str
    key: str
    path: str
    cached: bool


class TensorError(Record, frozen=True, kw_only=True):
    """How far one output tensor is from its fp32 counterpart, computed on the CPU in float32."""

    shape: list[int]
    dtype: str
    mae: float | None = None
    mse: float | None = None
    max_abs: float | None = None
    psnr_db: float | None = None
    psnr_peak: float | None = None
    """The peak of PSNR: the largest minus the smallest value of the reference."""
    ssim: float | None = None
    """Mean structural similarity over frames; dense maps only."""
    cosine: float | None = None
    sqnr_db: float | None = None
    """10 log10 of signal power over error power; null when the outputs are identical."""
    identical: bool = False
    error: str | None = None
    """Why this row has no numbers, e.g. a shape mismatch."""


class SceneAccuracy(Record, frozen=True, kw_only=True):
    """One scene's deviations from fp32, and its distances from the ground truth where that is known."""

    scene: str
    num_images: int
    outputs: dict[str, TensorError]
    notes: list[str]
    """Outputs that are lists or no tensors."""
    deviation: Figures
    truth: Figures | None
    """Null where the scene has no ground truth."""
    truth_unit: str | None
    """Of true depths and translations, `metre` or `unknown`; null without ground truth."""
