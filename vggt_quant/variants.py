"""Variants: named experiments, one entry each in `config/variants.yaml`. Reads them; imports no torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

ENGINES = ("fast", "plain")
ATTENTIONS = ("bfloat16", "float8", "sageattention")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How the model of a checkpoint is run. It decides times and last bits, and no byte of the checkpoint."""

    engine: Literal["fast", "plain"] = "fast"
    """`fast`: the fast kernels where the machine has them; `plain`: the model's own modules, layer by layer."""
    autocast: Literal["bfloat16"] | None = None
    """PyTorch's autocast around the transformer, its heads left out: VGGT's published way. On CUDA only."""
    tf32: bool = False
    """float32 products and convolutions in TF32, on CUDA only."""
    attention: Literal["bfloat16", "float8", "sageattention"] = "bfloat16"
    """What the fast engine's attention multiplies in, or a library that does, unless the model computes in float32."""
    attention_tokens: int = 3_500
    """Sequences at least so long go to that attention, shorter ones to bfloat16. From 3,500 tokens on float8 is faster
    on an H100 with a bound on the scores and without (docs/LOG.md, 2026-11-26)."""
    compile: bool = False
    """The transformer's blocks through `torch.compile`, on CUDA only."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.engine not in ENGINES:
            raise ValueError(f"run.engine is {self.engine!r}; choose one of {', '.join(ENGINES)}.")
        if self.autocast not in (None, "bfloat16"):
            raise ValueError(f"run.autocast is {self.autocast!r}; give bfloat16 or leave it out.")
        if not isinstance(self.tf32, bool):
            raise ValueError(f"run.tf32 is {self.tf32!r}; give true or false.")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"run.attention is {self.attention!r}; choose one of {', '.join(ATTENTIONS)}.")
        if type(self.attention_tokens) is not int or self.attention_tokens < 0:
            raise ValueError(f"run.attention_tokens is {self.attention_tokens!r}; give a whole number of tokens.")
        if not isinstance(self.compile, bool):
            raise ValueError(f"run.compile is {self.compile!r}; give true or false.")
        if self.engine != "plain" and (self.autocast or self.tf32 or self.compile):
            key = "autocast" if self.autocast else "tf32" if self.tf32 else "compile"
            raise ValueError(f"run.{key} goes with run.engine: plain only, not with {self.engine}.")
        if self.engine != "fast" and self.attention != "bfloat16":
            raise ValueError(f"run.attention: {self.attention} goes with run.engine: fast only, not with plain.")

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of device that have this way to run."""
        return ("cuda",) if self.way else ("cpu", "cuda")

    @property
    def way(self) -> str | None:
        """What there is on CUDA only, in words."""
        if self.tf32:
            return "TF32"
        if self.autocast:
            return f"{self.autocast} autocast"
        if self.compile:
            return "torch.compile"
        return {"bfloat16": None, "float8": "float8 attention"}.get(self.attention, self.attention)


DEFAULT = Run()

DTYPES = ("float32", "bfloat16", "float16")


def packaged(folder: str) -> Path:
    """The `config` or `workflow` folder of this package: inside it when installed, beside it in a checkout."""
    inside = Path(__file__).parent / f"_{folder}"
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A method, its settings and how everything that it leaves alone is stored."""

    name: str
    method: str
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    policy: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    """May fail without failing the run; its reason is then its result."""
    memory_limit_mb: int | None = None
    """A job of this variant may use this much memory (10^6 bytes) and no more."""
    run: Run = DEFAULT
    """How the checkpoint is run, as opposed to how it is made."""
    default: bool | Literal["cpu", "cuda"] = True
    """Compared where nobody says which variants to compare: always, never, or on that kind of device."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a variant."""
        if self.dtype not in DTYPES:
            raise ValueError(f"Variant {self.name}: dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}.")
        if not isinstance(self.config, dict) or not isinstance(self.policy, dict):
            raise ValueError(f"Variant {self.name}: config and policy are mappings of settings to values.")
        limit = self.memory_limit_mb
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(f"Variant {self.name}: memory_limit_mb is {limit!r}; give a positive whole number.")
        if not isinstance(self.optional, bool):
            raise ValueError(f"Variant {self.name}: optional is {self.optional!r}; give true or false.")
        if not isinstance(self.default, bool) and self.default not in ("cpu", "cuda"):
            raise ValueError(f"Variant {self.name}: default is {self.default!r}; give true, false, cpu or cuda.")
        if self.run.tf32 and self.dtype != "float32":
            raise ValueError(f"Variant {self.name}: run.tf32 goes with dtype: float32 only, not with {self.dtype}.")
        if self.run.attention != "bfloat16" and self.dtype != "bfloat16":
            way = f"run.attention: {self.run.attention}"
            raise ValueError(f"Variant {self.name}: {way} goes with dtype: bfloat16 only, not with {self.dtype}.")

    def is_default(self, device: str) -> bool:
        """Whether a run on that kind of device compares it without being told to."""
        return self.default is True or self.default == device

    def spec(self) -> dict[str, Any]:
        """Everything that decides the checkpoint's bytes; not its name, its marks, its memory limit or its run."""
        everything = asdict(self)
        return {key: everything[key] for key in ("method", "config", "dtype", "policy")}


def load_variants(path: Path | str | None = None) -> dict[str, Variant]:
    """All variants of a YAML file, by name; without a path, those that came with the package.

    Raises:
        ValueError: No such file, no YAML, or an entry with a missing or unknown key.
    """
    path = Path(path) if path else packaged("config") / "variants.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read the variants in {path}: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} should map variant names to settings, but holds {type(entries).__name__}.")
    return {name: _variant(name, entry, path) for name, entry in entries.items()}


def _variant(name: str, entry: Any, path: Path) -> Variant:
    if not isinstance(name, str):
        raise ValueError(f"{path}: the variant name {name!r} is no text; put it in quotes.")
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: variant {name} should be a mapping with at least `method`, but is {entry!r}.")
    run = entry.get("run", {})
    if not isinstance(run, dict):
        raise ValueError(f"{path}: variant {name}: run is {run!r}; give a mapping of settings to values.")
    try:
        return Variant(name=name, **{**entry, "run": _run(name, run)})
    except TypeError as error:
        raise ValueError(f"{path}: variant {name} has a missing or unknown key: {error}.") from error


def _run(name: str, settings: dict[str, Any]) -> Run:
    try:
        return Run(**settings)
    except ValueError as error:
        raise ValueError(f"Variant {name}: {error}") from error


def find_variant(name: str, path: Path | str | None = None) -> Variant:
    """One variant by name.

    Raises:
        ValueError: No variant of that name; the sentence lists those that exist.
    """
    variants = load_variants(path)
    if name not in variants:
        raise ValueError(f"There is no variant {name!r}; there are {', '.join(variants)}.")
    return variants[name]
