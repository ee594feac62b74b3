"""The definitions of `config/config.yaml` and of variants, the named experiments in `variants.yaml`.

Checks, messages, schemas and the tables of `config/README.md` come from the types and docstrings of these classes. Each
method's file defines its settings; `quantization.catalog` checks them. Imports no torch.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, structs

from vggt_quant.results.validation import Definition, build, near
from vggt_quant.results.yaml_file import read_yaml

NAME = "[A-Za-z][A-Za-z0-9_]*"
Name = Annotated[str, Meta(pattern=f"^{NAME}$", description="letters, digits and underscores, a letter first")]
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]

BACKENDS = (file.stem for file in (Path(__file__).parent / "inference" / "attention").glob("[!_]*.py"))
ATTENTIONS = ("bfloat16", *sorted(name for name in BACKENDS if name != "base"))
"""What `run.attention` may be; not in its type, so that a new file changes no schema and no table of types."""


class RunSettings(Definition, frozen=True, kw_only=True):
    """How the model of a checkpoint is run. It affects times and last bits, but not the checkpoint."""

    engine: Literal["fast", "plain"] = "fast"
    """`fast`: the fast kernels where the machine has them; `plain`: the model's own modules, layer by layer."""
    autocast: Literal["bfloat16"] | None = None
    """PyTorch's autocast around the transformer, its heads left out, as VGGT is published; `plain` on CUDA only."""
    tf32: bool = False
    """float32 products and convolutions in TF32; `plain` and `dtype: float32` on CUDA only."""
    attention: str = "bfloat16"
    """Attention backend of the fast engine: bfloat16 takes the fastest that there is, float8 our own kernel; any other
    is named by its file. Ignored for float32."""
    attention_tokens: Annotated[int, Meta(ge=0)] = 3_500
    """Sequences of at least this many tokens use that attention, shorter ones bfloat16. From 3,500 tokens on float8 is
    faster on an H100 with a bound on the scores and without (docs/LOG.md, 2026-11-26)."""
    compile: bool = False
    """The transformer's blocks through `torch.compile`, three compilations for each number of images; `plain` on CUDA
    only."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        super().__post_init__()
        if self.attention not in ATTENTIONS:
            names = ", ".join(ATTENTIONS)
            raise ValueError(
                f"There is no attention {self.attention!r}{near(self.attention, ATTENTIONS)}; there are {names}."
            )
        if self.engine != "plain" and (self.autocast or self.tf32 or self.compile):
            key = "autocast" if self.autocast else "tf32" if self.tf32 else "compile"
            raise ValueError(f"{key} goes with engine: plain only, not with {self.engine}.")
        if self.engine != "fast" and self.attention != "bfloat16":
            raise ValueError(f"attention: {self.attention} goes with engine: fast only, not with plain.")

    @property
    def devices(self) -> tuple[str, ...]:
        """The device types that support these settings."""
        return ("cuda",) if self.cuda_only else ("cpu", "cuda")

    @property
    def cuda_only(self) -> str | None:
        """The setting that only CUDA supports, in words; None if there is none."""
        if self.tf32:
            return "TF32"
        if self.autocast:
            return f"{self.autocast} autocast"
        if self.compile:
            return "torch.compile"
        return {"bfloat16": None, "float8": "float8 attention"}.get(self.attention, self.attention)


DEFAULT = RunSettings()


class Policy(Definition, frozen=True, kw_only=True):
    """Which layers stay in higher precision, besides those that `quantization.policy` always keeps."""

    keep: dict[Text, Text] = {}
    """Further layers that are kept: a shell-style pattern on the layer's full name, and your reason."""
    min_features: Annotated[int, Meta(ge=0)] = 16
    """Layers with fewer inputs or outputs are kept."""


FORMER_METHODS = {"round_to_float8": "fp8", "round_to_nf4": "bitsandbytes_nf4"}
"""Older names of `round_to_nearest`, which are still taken, and the format that each wrote."""


class VariantSettings(Definition, frozen=True, kw_only=True):
    """One entry of `variants.yaml`: a method, its settings, and how all that it leaves alone is stored."""

    method: Text
    """A file in `vggt_quant/quantization/methods/`."""
    config: dict[str, Any] = {}
    """The method's settings."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """How everything that is not quantized is stored and run."""
    policy: Policy = Policy()
    """Which layers stay in higher precision."""
    run: RunSettings = DEFAULT
    """How the checkpoint is run, as opposed to how it is made."""
    optional: bool = False
    """May fail without failing the run; its reason is then its result."""
    memory_limit_mb: Count | None = None
    """A job of this variant that needs more memory (10^6 bytes) is ended."""
    default: bool | Literal["cpu", "cuda"] = True
    """Whether a run that names no variants compares it: always, never, or in runs on that device."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a variant."""
        super().__post_init__()
        if self.method in FORMER_METHODS:
            structs.force_setattr(self, "config", {"format": FORMER_METHODS[self.method], **self.config})
            structs.force_setattr(self, "method", "round_to_nearest")
        if self.run.tf32 and self.dtype != "float32":
            raise ValueError(f"run.tf32 goes with dtype: float32 only, not with {self.dtype}.")
        if self.run.attention != "bfloat16" and self.dtype != "bfloat16":
            raise ValueError(
                f"run.attention: {self.run.attention} goes with dtype: bfloat16 only, not with {self.dtype}."
            )


class Variant(VariantSettings, frozen=True, kw_only=True):
    """A named experiment: one row of the report."""

    name: Text

    def is_default(self, device: str) -> bool:
        """Whether a run on that device type compares it by default."""
        return self.default is True or self.default == device

    def spec(self) -> dict[str, Any]:
        """Everything that decides the checkpoint's bytes; not its name, its marks, its memory limit or its run."""
        decisive: dict[str, Any] = msgspec.to_builtins(self)
        return {key: decisive[key] for key in ("method", "config", "dtype", "policy")}


class Images(Definition, frozen=True, kw_only=True):
    """What the variants are compared on."""

    folder: Text = "drawn"
    """A folder of photos (one scene), a scene with ground truth (ETH3D's or 7-Scenes' layout), a folder of such scenes,
    or `drawn`: rooms that the project draws itself, whose cameras and depths are known exactly."""
    max_scenes: Count | None = None
    """Take at most this many scenes; null takes all (of drawn ones, 16)."""
    max_images: Count | None = None
    """Take at most this many photos of each scene, to calibrate with, too; null takes all (of drawn ones, 4)."""
    mode: Literal["crop", "pad"] = "crop"
    """VGGT's preprocessing."""


class Calibration(Definition, frozen=True, kw_only=True):
    """What methods that calibrate may learn from. No photo may also be compared on."""

    folder: Text | None = "drawn"
    """As above (`drawn` are other rooms), or `none`."""
    max_scenes: Count | None = None
    """Take at most this many scenes; null takes all (of drawn ones, 8)."""


class Comparison(Definition, frozen=True, kw_only=True):
    """`config.yaml`: one run of the workflow."""

    model: Text = "tiny"
    """`tiny` (the small trained VGGT that ships with the package), a hub id (`facebook/VGGT-1B`), a weight file or
    folder, or seeded random weights: `tiny-random`, `small-random`, `nano-random`, `vggt-1b-random` (`:SEED` after
    it if you like)."""
    images: Images = Images()
    """What the variants are compared on."""
    calibration: Calibration = Calibration()
    """What methods that calibrate may learn from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""
    variants: Annotated[list[Text], Meta(min_length=1)] | None = None
    """The variants to compare; null takes those of the variants file whose `default` is true or the run's device."""
    variants_file: Text | None = None
    """Your own experiments; null takes the `variants.yaml` in the folder of `config.yaml`."""
    cache_dir: Text = "cache"
    """Checkpoints and float32 outputs, kept between runs; may be a network volume."""
    results_dir: Text = "results"
    """The report, the results, the logs and the benchmarks."""


def packaged(folder: str) -> Path:
    """The `config` or `workflow` folder: inside the package when installed, next to it in a checkout."""
    inside = Path(__file__).parent / f"_{folder}"
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


def read_comparison(data: Any, where: str = "config") -> tuple[Comparison, list[str]]:
    """A checked configuration, and what to tell the user: sentences about older spellings.

    Args:
        data: What `config.yaml` holds; numbers may be text, as Snakemake's `--config` hands them on.
        where: Its name in messages.

    Raises:
        ValueError: A key or a value that a comparison does not have.
    """
    notes, key = [], "variants"
    if isinstance(data, dict) and "methods" in data:
        data = dict(data)
        older, named = data.pop("methods"), data.get("variants")
        if older is not None and named is not None:
            raise ValueError(f"{where}: variants and methods (its older spelling) are both given; keep variants.")
        if older is not None:
            notes.append(f"{where}: methods is an older spelling; write variants.")
            data["variants"], key = older, "methods"
    if isinstance(data, dict):
        data = {**data, "variants": _listed(data.get("variants"), f"{where}: {key}")}
    return build(Comparison, data, where, strict=False), notes


def _listed(names: Any, where: str) -> Any:
    """One name, which people write without brackets, as a list of one."""
    if isinstance(names, str) and re.fullmatch(NAME, names) and names.lower() != "null":
        return [names]
    if not isinstance(names, str | list | None) or (isinstance(names, str) and names.lower() != "null"):
        raise ValueError(f"{where} should be a list of names such as [bf16, int4_group128], but is {names!r}.")
    return names


def load_variants(path: Path | str | None = None) -> dict[str, Variant]:
    """All variants of a YAML file, by name; without a path, those that came with the package.

    The settings of methods are checked by `quantization.catalog`.

    Raises:
        ValueError: No such file, no YAML, a name that is there twice or in another case, or an entry with a missing or
            unknown key.
    """
    path = variants_path(path)
    entries = read_yaml(path, "the variants in ")
    if not isinstance(entries, dict) or not entries:
        found = "nothing" if not entries else type(entries).__name__
        raise ValueError(f"{path} should map names of variants to their settings, but holds {found}.")
    variants = {name: _variant(name, entry, path) for name, entry in entries.items()}
    _refuse_same_files(variants, path)
    return variants


def variants_path(path: Path | str | None = None) -> Path:
    """The file that defines variants: the given one, else the package's."""
    return Path(path) if path else packaged("config") / "variants.yaml"


def _refuse_same_files(names: Iterable[str], path: Path) -> None:
    """Refuse names that differ in case only: on a disk that ignores case their results would be one file."""
    seen: dict[str, str] = {}
    for name in names:
        if (first := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{path}: variants {first} and {name} differ in case only; give one of them another name.")


def _variant(name: Any, entry: Any, path: Path) -> Variant:
    build(Name, name, f"{path}: the name of a variant")
    settings = build(VariantSettings, entry, f"{path}: variant {name}")
    return Variant(name=name, **{key: getattr(settings, key) for key in VariantSettings.__struct_fields__})


def find_variant(name: str, path: Path | str | None = None) -> Variant:
    """One variant by name.

    Raises:
        ValueError: No variant of that name; the sentence lists those that exist.
    """
    variants = load_variants(path)
    expect_variants([name], variants)
    return variants[name]


def expect_variants(names: list[str], variants: Collection[str]) -> None:
    """Refuse names that are not among the variants.

    Raises:
        ValueError: A name that does not exist; the sentence lists those that do.
    """
    for name in names:
        if name not in variants:
            raise ValueError(f"There is no variant {name!r}{near(name, variants)}; there are {', '.join(variants)}.")
