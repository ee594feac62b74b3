"""The sizes that define one VGGT: frozen dataclasses, nested as the modules are; their types say what is allowed.

Every default is VGGT-1B's, so `VGGTConfig()` is the released model, and `NAMED` adds smaller ones of the same
architecture. Field names follow upstream's constructor arguments. Arguments of upstream that the released weights
fix (the order frame, global; the biases; linear pose activations; ...) are not choices here: `FIXED` lists them, and
`from_dict` accepts them only with that value.

Source: VGGT (Wang et al., CVPR 2025, arXiv:2503.11651).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

Config = TypeVar("Config")

HEAD_NAMES = ("camera_head", "depth_head", "point_head", "track_head")

FIXED: dict[str, dict[str, Any]] = {
    "patch_embed": {
        "qk_norm": False,
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
        "norm_eps": 1e-6,
    },
    "aggregator": {
        "aa_order": ["frame", "global"],
        "aa_block_size": 1,
        "qk_norm": True,
        "qkv_bias": True,
        "proj_bias": True,
        "ffn_bias": True,
    },
    "camera_head": {"trans_act": "linear", "quat_act": "linear", "fl_act": "relu"},
    "depth_head": {"conf_activation": "expp1", "pos_embed": True},
    "point_head": {"conf_activation": "expp1", "pos_embed": True},
    "track_head": {"predict_conf": True, "pos_embed": False},
}
FIXED_TOP = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def _require(holds: bool, key: str, value: object, cure: str) -> None:
    if not holds:
        raise ValueError(f"The model setting {key} is {value!r}; {cure}.")


Count = Annotated[int, Meta(ge=1, description="a positive whole number")]
Positive = Annotated[float, Meta(gt=0, description="a positive number")]
Features = Annotated[int, Meta(ge=8, multiple_of=8, description="a positive multiple of 8")]
Level = Annotated[int, Meta(ge=4, multiple_of=4)]
Levels = Annotated[tuple[Level, Level, Level, Level], Meta(description="four positive multiples of 4")]
Layer = Annotated[int, Meta(ge=0)]
Layers = Annotated[tuple[Layer, Layer, Layer, Layer], Meta(description="four layer numbers from 0")]


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchEmbedConfig:
    """How an image becomes patch tokens.

    Attributes:
        type: "dinov2" (a ViT with registers) or "conv" (one convolution; the other fields are then unused).
        depth: transformer blocks of the ViT.
        num_heads: attention heads of the ViT.
        mlp_ratio: hidden width of an MLP over the embedding width.
        num_register_tokens: registers the ViT carries and drops at its end.
        init_values: initial LayerScale.
    """

    type: Literal["dinov2", "conv"] = "dinov2"
    depth: Count = 24
    num_heads: Count = 16
    mlp_ratio: Positive = 4.0
    num_register_tokens: Count = 4
    init_values: Positive = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregatorConfig:
    """The alternating frame and global blocks.

    Attributes:
        depth: layers; each is one frame block and one global block.
        num_heads: attention heads of a block.
        mlp_ratio: hidden width of an MLP over the embedding width.
        num_register_tokens: register tokens a frame carries in addition to its camera token.
        rope_freq: base of the rotary frequencies.
        init_values: initial LayerScale.
    """

    depth: Count = 24
    num_heads: Count = 16
    mlp_ratio: Positive = 4.0
    num_register_tokens: Count = 4
    rope_freq: Annotated[float, Meta(gt=1, description="a number above 1")] = 100.0
    init_values: Positive = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraHeadConfig:
    """The iterative pose regressor.

    Attributes:
        dim_in: width of the camera tokens it reads, twice the embedding width.
        trunk_depth: transformer blocks of the trunk.
        num_heads: attention heads of the trunk.
        mlp_ratio: hidden width of an MLP over dim_in.
        init_values: initial LayerScale.
        num_iterations: pose updates.
    """

    dim_in: Count = 2048
    trunk_depth: Count = 4
    num_heads: Count = 16
    mlp_ratio: Positive = 4.0
    init_values: Positive = 0.01
    num_iterations: Count = 4

    def __post_init__(self) -> None:
        _require(self.dim_in % self.num_heads == 0, "camera_head.num_heads", self.num_heads, "let it divide dim_in")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseHeadConfig:
    """A DPT head with one value map and one confidence map.

    Attributes:
        dim_in: width of the tokens it reads, twice the embedding width.
        patch_size: pixels of a patch's side.
        output_dim: channels of the logits; the last is the confidence.
        activation: "exp" for depth, "inv_log" (sign(y) * expm1(|y|)) for points.
        features: channels of the fusion blocks.
        out_channels: channels of the four levels before fusion, finest first.
        intermediate_layer_idx: the four aggregator layers it reads.
    """

    output_dim: Annotated[int, Meta(ge=2, description="2 or more, the last for the confidence")]
    activation: Literal["exp", "inv_log"]
    dim_in: Count = 2048
    patch_size: Count = 14
    features: Features = 256
    out_channels: Levels = (256, 512, 1024, 1024)
    intermediate_layer_idx: Layers = (4, 11, 17, 23)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackHeadConfig:
    """The point tracker: a DPT feature extractor and an iterative transformer.

    Attributes:
        dim_in: width of the tokens it reads, twice the embedding width.
        patch_size: pixels of a patch's side.
        features: channels of the feature maps.
        out_channels: channels of the four levels before fusion, finest first.
        intermediate_layer_idx: the four aggregator layers it reads.
        down_ratio: image pixels per feature map pixel.
        iters: track updates.
        stride: image pixels per unit of the tracker's coordinates.
        corr_levels: levels of the correlation pyramid; the coarsest map still needs one pixel.
        corr_radius: half side of the correlation window.
        hidden_size: width of the tracker's transformer.
        tracker_depth: its time blocks, and as many space blocks.
        tracker_num_heads: its attention heads.
        num_virtual_tracks: tracks through which points exchange information.
        max_scale: divisor of the relative motion in the embedding.
    """

    dim_in: Count = 2048
    patch_size: Count = 14
    features: Features = 128
    out_channels: Levels = (256, 512, 1024, 1024)
    intermediate_layer_idx: Layers = (4, 11, 17, 23)
    down_ratio: Count = 2
    iters: Count = 4
    stride: Count = 2
    corr_levels: Count = 7
    corr_radius: Count = 4
    hidden_size: Count = 384
    tracker_depth: Count = 6
    tracker_num_heads: Count = 8
    num_virtual_tracks: Count = 64
    max_scale: Count = 518

    def __post_init__(self) -> None:
        divides = self.hidden_size % self.tracker_num_heads == 0
        _require(divides, "track_head.tracker_num_heads", self.tracker_num_heads, "let it divide hidden_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class VGGTConfig:
    """One VGGT. A head that is None is absent from the model and from its outputs.

    Attributes:
        img_size: pixels of the square image whose patch grid the positional embedding has.
        patch_size: pixels of a patch's side.
        embed_dim: width of patch, frame and global tokens; heads read twice that.
        patch_embed: images to patch tokens.
        aggregator: patch tokens to the tokens the heads read.
        camera_head: poses.
        depth_head: depth maps.
        point_head: point maps.
        track_head: point tracks.
    """

    img_size: Count = 518
    patch_size: Count = 14
    embed_dim: Count = 1024
    patch_embed: PatchEmbedConfig = field(default_factory=PatchEmbedConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    camera_head: CameraHeadConfig | None = field(default_factory=CameraHeadConfig)
    depth_head: DenseHeadConfig | None = field(default_factory=lambda: DenseHeadConfig(output_dim=2, activation="exp"))
    point_head: DenseHeadConfig | None = field(
        default_factory=lambda: DenseHeadConfig(output_dim=4, activation="inv_log")
    )
    track_head: TrackHeadConfig | None = field(default_factory=TrackHeadConfig)

    def __post_init__(self) -> None:
        whole = self.img_size % self.patch_size == 0
        _require(whole, "img_size", self.img_size, f"give a multiple of patch_size {self.patch_size}")
        for section in (self.aggregator,) if self.patch_embed.type == "conv" else (self.aggregator, self.patch_embed):
            per_head, rest = divmod(self.embed_dim, section.num_heads)
            cure = f"let embed_dim {self.embed_dim} be num_heads times a multiple of 4"
            _require(rest == 0 and per_head % 4 == 0, "num_heads", section.num_heads, cure)
        for name in HEAD_NAMES:
            self._check_head(name)

    def _check_head(self, name: str) -> None:
        head = getattr(self, name)
        if head is None:
            return
        _require(head.dim_in == 2 * self.embed_dim, f"{name}.dim_in", head.dim_in, "give twice embed_dim")
        if isinstance(head, CameraHeadConfig):
            return
        _require(
            head.patch_size == self.patch_size, f"{name}.patch_size", head.patch_size, "give the model's patch_size"
        )
        layers = head.intermediate_layer_idx
        exist = max(layers) < self.aggregator.depth
        _require(exist, f"{name}.intermediate_layer_idx", layers, f"the aggregator has {self.aggregator.depth} layers")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back as an equal config."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> VGGTConfig:
        """Read `to_dict`'s result, upstream's constructor arguments by section, or VGGT-1B's small config.json.

        A head that the first two do not name is absent.

        Raises:
            ValueError: a key is unknown, or a value is impossible or not implemented.
        """
        if "aggregator" not in settings:
            return _from_hub(settings)
        _refuse_unknown("", settings, {f.name for f in fields(cls)} | set(FIXED_TOP) | {"name"})
        _check_fixed("", settings, FIXED_TOP)
        sections: dict[str, Any] = {
            "patch_embed": _read_section(PatchEmbedConfig, "patch_embed", _patch_embed_section(settings)),
            "aggregator": _read_section(AggregatorConfig, "aggregator", settings["aggregator"]),
            "camera_head": _read_section(CameraHeadConfig, "camera_head", settings.get("camera_head")),
            "depth_head": _read_section(DenseHeadConfig, "depth_head", settings.get("depth_head")),
            "point_head": _read_section(DenseHeadConfig, "point_head", settings.get("point_head")),
            "track_head": _read_section(TrackHeadConfig, "track_head", settings.get("track_head")),
        }
        sizes = {key: settings[key] for key in ("img_size", "patch_size", "embed_dim") if key in settings}
        return _read(cls, "", {**sizes, **sections})


def _from_hub(settings: Mapping[str, Any]) -> VGGTConfig:
    """VGGT-1B's own config.json names three sizes and which heads are on; other keys there describe no size."""
    released = VGGTConfig()
    _check_fixed("", settings, {"patch_size": released.patch_size, "embed_dim": released.embed_dim})
    absent = {
        f"{head}_head": None
        for head in ("camera", "depth", "point", "track")
        if not settings.get(f"enable_{head}", True)
    }
    sizes = {"img_size": settings["img_size"]} if "img_size" in settings else {}
    return _read(VGGTConfig, "", {**sizes, **absent})


def _patch_embed_section(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    given = settings.get("patch_embed", {})
    _require(isinstance(given, Mapping), "patch_embed", given, "give a mapping of settings")
    section = dict(given)
    width = section.pop("embed_dim", None)
    _require(width in (None, settings.get("embed_dim")), "patch_embed.embed_dim", width, "give the model's embed_dim")
    return section


def _read_section(section_type: type, name: str, section: Any) -> Any:
    if section is None:
        return None
    _require(isinstance(section, Mapping), name, section, "give a mapping of settings")
    known = {f.name for f in fields(section_type)}
    _refuse_unknown(f"{name}.", section, known | set(FIXED[name]))
    _check_fixed(f"{name}.", section, FIXED[name])
    values = {key: value for key, value in section.items() if key in known}
    missing = {"output_dim", "activation"} & known - set(values)
    _require(not missing, name, section, f"add {sorted(missing)}")
    return _read(section_type, f"{name}.", values)


def _read(kind: type[Config], prefix: str, values: dict[str, Any]) -> Config:
    """A config of checked values; the first that its type does not allow is named with what it allows."""
    hints = get_type_hints(kind, include_extras=True)
    for key, value in values.items():
        try:
            values[key] = value if is_dataclass(value) else msgspec.convert(value, hints[key])
        except msgspec.ValidationError:
            _require(False, f"{prefix}{key}", value, _cure(hints[key]))
    return kind(**values)


def _cure(hint: Any) -> str:
    """What to give instead of a value that a type does not allow."""
    if get_origin(hint) is Annotated:
        return f"give {hint.__metadata__[0].description}"
    if get_origin(hint) is Literal:
        return f"use {' or '.join(map(repr, get_args(hint)))}"
    return "give a mapping of settings"


def _refuse_unknown(prefix: str, settings: Mapping[str, Any], known: set[str]) -> None:
    for key in settings:
        _require(key in known, f"{prefix}{key}", settings[key], "this key is unknown, remove it or correct its name")


def _check_fixed(prefix: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        given = settings.get(key, value)
        given = list(given) if isinstance(given, tuple) else given
        _require(given == value, f"{prefix}{key}", given, f"only {value!r} is implemented")


def _dense(activation: Literal["exp", "inv_log"], output_dim: int, sizes: Mapping[str, Any]) -> DenseHeadConfig:
    return DenseHeadConfig(activation=activation, output_dim=output_dim, **sizes)


def _small() -> VGGTConfig:
    levels: dict[str, Any] = {
        "dim_in": 512,
        "out_channels": (64, 128, 256, 256),
        "intermediate_layer_idx": (0, 1, 2, 3),
    }
    return VGGTConfig(
        img_size=224,
        embed_dim=256,
        patch_embed=PatchEmbedConfig(depth=4, num_heads=4),
        aggregator=AggregatorConfig(depth=4, num_heads=4, init_values=0.3),
        camera_head=CameraHeadConfig(dim_in=512, trunk_depth=2, num_heads=8, init_values=0.3),
        depth_head=_dense("exp", 2, {"features": 64, **levels}),
        point_head=_dense("inv_log", 4, {"features": 64, **levels}),
        track_head=TrackHeadConfig(
            features=64, hidden_size=128, tracker_depth=2, tracker_num_heads=4, corr_levels=5, corr_radius=3,
            max_scale=224, **levels,
        ),
    )  # fmt: skip


def _tiny() -> VGGTConfig:  # The trained model in `tiny/`: multiples of 128, so that groups of 128 are whole.
    levels: dict[str, Any] = dict(
        dim_in=512, features=64, out_channels=(64, 128, 128, 128), intermediate_layer_idx=(1, 2, 3, 4)
    )
    return VGGTConfig(
        img_size=112, embed_dim=256, patch_embed=PatchEmbedConfig(depth=2, num_heads=4),
        aggregator=AggregatorConfig(depth=5, num_heads=4, init_values=0.3), track_head=None,
        camera_head=CameraHeadConfig(dim_in=512, trunk_depth=1, num_heads=8, init_values=0.3),
        depth_head=_dense("exp", 2, levels), point_head=_dense("inv_log", 4, levels),
    )  # fmt: skip


def _nano() -> VGGTConfig:
    levels: dict[str, Any] = {
        "dim_in": 256,
        "features": 32,
        "out_channels": (32, 32, 64, 64),
        "intermediate_layer_idx": (0, 0, 1, 1),
    }
    return VGGTConfig(
        img_size=112,
        embed_dim=128,
        patch_embed=PatchEmbedConfig(depth=1, num_heads=2),
        aggregator=AggregatorConfig(depth=2, num_heads=2, init_values=0.3),
        camera_head=CameraHeadConfig(dim_in=256, trunk_depth=1, num_heads=4, init_values=0.3),
        depth_head=_dense("exp", 2, levels),
        point_head=_dense("inv_log", 4, levels),
        track_head=TrackHeadConfig(
            hidden_size=64, tracker_depth=1, tracker_num_heads=2, num_virtual_tracks=16, corr_levels=4, corr_radius=2,
            max_scale=112, **levels,
        ),
    )  # fmt: skip


NAMED: dict[str, VGGTConfig] = {"vggt-1b": VGGTConfig(), "small": _small(), "tiny": _tiny(), "nano": _nano()}
