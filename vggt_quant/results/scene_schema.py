"""What result files say of one scene: its photos, its fp32 outputs, how far a variant is from both fp32 and the truth.

Part of THE schema, whose files `schema` reads and writes. Standard library only.
"""

from dataclasses import dataclass
from typing import Literal

TruthPart = Literal["poses", "intrinsics", "depth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedImage:
    """A file that looked like an image and was not used."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneImages:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputInfo:
    """One entry of the model's output dictionary."""

    type: str
    shape: list[int] | None
    dtype: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneReference:
    """One scene's fp32 outputs in the cache."""

    scene: str
    key: str
    path: str
    cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorError:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TruthAccuracy:
    """How far one scene's outputs are from the ground truth; `evaluation.metrics` says by which protocols.

    A figure is null where the truth for it is not known, or where the output is not finite.
    """

    unit: str
    """Of the `cloud_` distances: `metre` or `unknown`."""
    num_pairs: int | None = None
    """Pairs of photos whose poses are known."""
    pose_auc_30: float | None = None
    pose_auc_15: float | None = None
    pose_auc_5: float | None = None
    pose_auc_3: float | None = None
    """Share of pairs, 0 to 1, whose larger angle is under 1, 2, ... degrees, averaged."""
    rra_5: float | None = None
    rra_15: float | None = None
    rra_30: float | None = None
    rta_5: float | None = None
    rta_15: float | None = None
    rta_30: float | None = None
    """Share of pairs whose relative rotation (RRA) or translation direction (RTA) is off by less, in degrees."""
    rotation_error_deg_median: float | None = None
    direction_error_deg_median: float | None = None
    depth_abs_rel: float | None = None
    depth_delta_125: float | None = None
    """AbsRel and the share of pixels within a factor of 1.25, after one median scale for the scene."""
    depth_scale: float | None = None
    depth_valid_share: float | None = None
    constant_depth_abs_rel: float | None = None
    """The control: AbsRel of the same depth everywhere."""
    point_error_of_scene_size: float | None = None
    """Mean distance of the model's own `world_points` to the true ones after the best similarity; the scene's size is
    the mean distance of the true points to the first camera."""
    cloud_accuracy_mean: float | None = None
    cloud_accuracy_median: float | None = None
    cloud_completeness_mean: float | None = None
    cloud_completeness_median: float | None = None
    cloud_overall_mean: float | None = None
    """Nearest-neighbour distances of the cloud that the predicted depth gives with the predicted cameras, which is what
    VGGT's authors call "depth + camera", to the true cloud and back, and the mean of both."""
    cloud_normal_consistency_mean: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneAccuracy:
    """One scene's deviations from fp32, and from the truth where that is known."""

    scene: str
    num_images: int
    outputs: dict[str, TensorError]
    notes: list[str]
    """Outputs that are lists or no tensors."""
    rotation_error_deg_mean: float | None = None
    rotation_error_deg_max: float | None = None
    translation_angle_deg_mean: float | None = None
    """Angle between translation directions; frames whose reference translation is nearly zero are left out."""
    translation_angle_deg_max: float | None = None
    fov_error_deg_mean: float | None = None
    depth_abs_rel: float | None = None
    depth_delta_125: float | None = None
    truth: TruthAccuracy | None = None
