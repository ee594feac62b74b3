"""Finds VGGT's weights by name, identifies them, and loads them strictly.

Idea: `resolve` turns what a user typed into a `ModelSource` (which files or which seed, and the sizes), downloading
if need be; `load_pretrained` builds the model without memory, compares every name and shape, and hands the stored
tensors over without a copy. A name is one of:

- a hub model such as "facebook/VGGT-1B": config.json and model.safetensors, shards, or model.pt;
- a local file: .safetensors, .pt, .pth or .bin; a config.json in its folder gives the sizes, else they are VGGT-1B's;
- a local folder with the same files as a hub model;
- "tiny", the small trained model that is part of this package, or "tiny-outliers", its twin with heavy-tailed
  activations (see `outliers`);
- a named configuration with seeded random weights: "small-random", "nano-random:7", "vggt-1b-random".

Memory: files are mapped privately, so float32 weights on a CPU live in the page cache, are read when first used, and
changing them in place never touches the file; bfloat16 and float16 are widened tensor by tensor.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggt_quant.model.config import NAMED, VGGTConfig
from vggt_quant.model.device import pick_device
from vggt_quant.model.vggt import VGGT
from vggt_quant.model.weights.hub import HubFile, WeightsError, fetch, sha256_of_file
from vggt_quant.model.weights.outliers import SEED, inject_outliers
from vggt_quant.model.weights.random_weights import random_sha256, random_state

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_FILES = ("model.safetensors", INDEX_FILE, "model.pt")
"""What a folder or a hub model may hold, best first."""

TINY_FOLDER = Path(__file__).parents[1] / "tiny"
BUNDLED: dict[str, int | None] = {"tiny": None, "tiny-outliers": SEED}
"""Models that are part of this package; the number is the seed of a twin's outliers."""

PICKLED = (".pt", ".pth", ".bin")
WRAPPERS = ("model", "state_dict")
"""Keys under which a pickled checkpoint may keep its state dict."""

STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Where a model's weights come from.

    Attributes:
        name: as the user wrote it.
        kind: "bundled", "hub", "file", "folder" or "random".
        config: the model's sizes.
        paths: the weight files, in the order in which they are read; none for random weights.
        random_seed: the seed of random weights, else None.
        revision: the commit of a hub model, else None.
        outlier_seed: the seed of the outliers that are added when the weights are read, else None.
    """

    name: str
    kind: str
    config: VGGTConfig
    paths: tuple[Path, ...] = ()
    random_seed: int | None = None
    revision: str | None = None
    outlier_seed: int | None = None

    @property
    def label(self) -> str:
        """What a report calls these weights."""
        return self.name if self.random_seed is None else f"random weights (seed {self.random_seed})"


def resolve(name_or_path: str | Path, *, revision: str | None = None, offline: bool = False) -> ModelSource:
    """Find the weights that a name or path means; a hub model is downloaded unless it is cached.

    Args:
        name_or_path: see the module's description; an existing path comes before a hub model of the same name.
        revision: branch, tag or commit of a hub model.
        offline: use only the hub's local cache; HF_HUB_OFFLINE=1 does the same.

    Raises:
        WeightsError: nothing is there, it cannot be fetched, or its sizes are not a VGGT's.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in BUNDLED:
        return replace(_resolve_folder(name, TINY_FOLDER), kind="bundled", outlier_seed=BUNDLED[name])
    if name and path.is_dir():
        return _resolve_folder(name, path)
    if path.is_file():
        return _resolve_file(name, path)
    if random := re.fullmatch(f"({'|'.join(map(re.escape, NAMED))})-random(?::([0-9]+))?", name):
        return ModelSource(name=name, kind="random", config=NAMED[random[1]], random_seed=int(random[2] or 0))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) and not name.startswith(".") and not _is_weight_file(path):
        return hub_source(name, revision, lambda file, commit: fetch(name, file, revision=commit, offline=offline))
    if "/" in name or name.startswith(("~", ".")) or _is_weight_file(path):
        raise WeightsError(f"There is no file or folder {name!r}; check the path.")
    choices = [*BUNDLED, *(f"{key}-random" for key in NAMED)]
    close = difflib.get_close_matches(name.lower(), choices, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise WeightsError(
        f"There is no model {name!r}{meant}; give a hub model such as facebook/VGGT-1B, a file (.safetensors, "
        f"{', '.join(PICKLED)}), a folder with {WEIGHT_FILES[0]} or model.pt, or one of {', '.join(choices)} "
        "(with a seed: small-random:7)."
    )


def weights_sha256(source: ModelSource) -> str:
    """Return 64 hex digits that identify the weights: of the file's bytes, of all shards', or of seed and sizes.

    The bytes are always read: the hub's own file names are sha256 sums too, but of what was sent, not of what a
    disk holds today.

    Raises:
        WeightsError: a file cannot be read.
    """
    if source.random_seed is not None:
        return random_sha256(source.config, source.random_seed)
    try:
        digests = [sha256_of_file(path) for path in source.paths]
    except OSError as error:
        raise WeightsError(f"Cannot read {error.filename}: {error.strerror}.") from error
    if source.outlier_seed is not None:
        digests.append(f"outliers {source.outlier_seed}")
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def load_state(source: ModelSource) -> dict[str, Tensor]:
    """Return the stored tensors by state-dict name, as stored; those of files are mapped, not yet read.

    Raises:
        WeightsError: a file is missing, truncated, no checkpoint, or names a tensor twice.
    """
    if source.random_seed is not None:
        return random_state(_shapes(_without_memory(source.config)), source.random_seed)
    state: dict[str, Tensor] = {}
    for path in source.paths:
        part = _read_pickled(path) if path.suffix in PICKLED else _read_safetensors(path)
        if twice := state.keys() & part.keys():
            raise WeightsError(f"{path} repeats tensors of another shard, such as {min(twice)!r}; fetch it again.")
        state |= part
    return state if source.outlier_seed is None else inject_outliers(state, seed=source.outlier_seed)


def expect_fitting(source: ModelSource) -> None:
    """Compare names, shapes and dtypes of the stored tensors with the model's; their values are not read.

    Raises:
        WeightsError: the weights cannot be read or are not those of `source.config`.
    """
    if source.random_seed is None:
        _check_state(source, _shapes(_without_memory(source.config)), load_state(replace(source, outlier_seed=None)))


def load_pretrained(source: ModelSource, device: str | torch.device = "cpu") -> VGGT:
    """Build the model and give it the source's weights, float32, in evaluation mode, without gradients.

    Raises:
        WeightsError: the weights cannot be read or are not those of `source.config`.
    """
    device, model = pick_device(device), _without_memory(source.config)
    expected, state = _shapes(model), load_state(source)
    _check_state(source, expected, state)
    for name in expected:
        state[name] = state[name].to(device=device, dtype=torch.float32)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _is_weight_file(path: Path) -> bool:
    return path.suffix in (".safetensors", *PICKLED)


def _resolve_file(name: str, path: Path) -> ModelSource:
    if not _is_weight_file(path):
        raise WeightsError(f"{path} is no weight file; give a .safetensors, {', '.join(PICKLED)} file or a folder.")
    return ModelSource(name=name, kind="file", config=_read_config(path.parent), paths=(path,))


def _resolve_folder(name: str, folder: Path) -> ModelSource:
    found = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if found is None:
        raise WeightsError(f"{folder} holds no weights; it needs one of {', '.join(WEIGHT_FILES)}.")
    paths = (found,) if found.name != INDEX_FILE else tuple(folder / shard for shard in _shard_names(found))
    if missing := next((path for path in paths if not path.is_file()), None):
        raise WeightsError(f"{missing} is missing, but {found} lists it; fetch the folder again.")
    return ModelSource(name=name, kind="folder", config=_read_config(folder), paths=paths)


def hub_source(repo: str, revision: str | None, get: Callable[[str, str | None], HubFile | None]) -> ModelSource:
    """Have `get` fetch what a hub model needs, and say which files those are.

    Args:
        repo: "owner/name".
        revision: branch, tag or commit; the default branch if None.
        get: from a file's name and a revision to its local copy, or None if the model has no such file; it puts the
            config.json and the weights into one folder, each under its own name.

    Raises:
        WeightsError: the model holds no weights, or its config.json is not a VGGT's.
    """
    config_file = get(CONFIG_FILE, revision)
    commit = revision if config_file is None else config_file.commit  # so that all files are of one commit
    config = NAMED["vggt-1b"] if config_file is None else _read_config(config_file.path.parent)
    found = next((file for name in WEIGHT_FILES if (file := get(name, commit)) is not None), None)
    if found is None:
        raise WeightsError(f"The hub model {repo!r} holds no weights; it needs one of {', '.join(WEIGHT_FILES)}.")
    paths = [found.path]
    if found.path.name == INDEX_FILE:
        paths = [_shard(repo, get(shard, found.commit), shard) for shard in _shard_names(found.path)]
    return ModelSource(name=repo, kind="hub", config=config, paths=tuple(paths), revision=found.commit)


def _shard(repo: str, file: HubFile | None, shard: str) -> Path:
    if file is None:
        raise WeightsError(f"The hub model {repo!r} lacks {shard}, which its {INDEX_FILE} lists; use another model.")
    return file.path


def _read_config(folder: Path) -> VGGTConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return NAMED["vggt-1b"]
    try:
        return VGGTConfig.from_dict(_read_json_object(path))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} does not describe a VGGT: {error}") from error


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a JSON {type(value).__name__}, not an object; fetch it again.")
    return value


def _shard_names(index: Path) -> list[str]:
    weight_map = _read_json_object(index).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    # A plain name only: an index must not be able to point outside its own folder.
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise WeightsError(f"{index} does not list .safetensors shards under 'weight_map'; fetch it again.")
    return names


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, keys() only
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path.resolve()} is truncated or no safetensors file ({error}); delete it and fetch it again."
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path.resolve()} is truncated or no PyTorch checkpoint (a zip file); delete it and fetch it again."
        )
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (UnpicklingError, RuntimeError, OSError, EOFError) as error:
        cause = str(error).split("\n")[0]
        raise WeightsError(
            f"{path.resolve()} holds more than tensors or is damaged ({cause}); use another file."
        ) from (error)
    return _unwrap(path, content)


def _unwrap(path: Path, content: object) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint, which may lie under one of WRAPPERS."""
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path.resolve()} holds no state dict (names and tensors); use another file.")
    return dict(content)


def _without_memory(config: VGGTConfig) -> VGGT:
    with torch.device("meta"):
        return VGGT(config)


def _shapes(model: VGGT) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_state(source: ModelSource, expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless names, shapes and dtypes are exactly the model's."""
    where = ", ".join(str(path) for path in source.paths) or source.name
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    shapes = [name for name in expected if name in state and state[name].shape != expected[name]]
    dtypes = [name for name, tensor in state.items() if tensor.dtype not in STORED_DTYPES]
    problems = [
        *(f"it lacks {len(missing)} of {len(expected)} tensors, such as {name!r}" for name in missing[:1]),
        *(f"it has {len(extra)} others, such as {name!r}" for name in extra[:1]),
        *(
            f"{len(shapes)} shapes differ, such as {name!r}: {list(state[name].shape)}, not {list(expected[name])}"
            for name in shapes[:1]
        ),
        *(f"{len(dtypes)} dtypes are unknown, such as {name!r}: {state[name].dtype}" for name in dtypes[:1]),
    ]
    if problems:
        raise WeightsError(f"{where} does not fit the model: {'; '.join(problems)}. {_cure(missing, extra, state)}")


def _cure(missing: list[str], extra: list[str], state: Mapping[str, Tensor]) -> str:
    """Say what to do about weights that do not fit."""
    if _looks_like_omega(state):
        return "This looks like VGGT-Omega, another architecture; use facebook/VGGT-1B."
    heads = sorted({name.partition(".")[0] for name in (*missing, *extra)})
    if heads and all(head.endswith("_head") for head in heads):
        switches = ", ".join(f"enable_{head.removesuffix('_head')}" for head in heads)
        return f"Set {switches} in the {CONFIG_FILE} beside it to say which heads the file has."
    return f"Give VGGT weights, and the {CONFIG_FILE} that belongs to them if their sizes are not VGGT-1B's."


def _looks_like_omega(state: Mapping[str, Tensor]) -> bool:
    """VGGT-Omega has patches of 16 pixels and 16 registers; every VGGT here has 14 and 4 unless its config says so."""
    sizes = {"patch_embed.proj.weight": -1, "register_token": -2}
    return any(
        name.endswith(suffix) and tensor.ndim >= 3 and tensor.shape[axis] == 16
        for name, tensor in state.items()
        for suffix, axis in sizes.items()
    )
