"""How a packed checkpoint is run, as opposed to how it is made: the `run` settings of a variant. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

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
