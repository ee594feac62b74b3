"""`fetch model`: a hub model's config.json and weights as plain files in a folder that `vggt_quant.load` opens.

Idea: `model.weights.pretrained` decides which files a model needs, as when a model is loaded by name. Small files go
through `huggingface_hub` and its cache. Weights do not, because the library (2.x) restarts a transfer when the process
that began it has ended. They go through `download`, which resumes, and are compared with the sha256 that the hub
announces. Partial files are kept per commit, so files of two commits are never mixed.
"""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from vggt_quant.data.fetch.download import DamagedError, FetchError, fetch_checked
from vggt_quant.data.fetch.target import finish, manifest_of, workplace
from vggt_quant.model.weights import hub
from vggt_quant.model.weights.pretrained import hub_source


def fetch_model(repo: str, to: Path, revision: str) -> None:
    """Put the hub model `repo` at `revision` into a folder of its name below `to`.

    Raises:
        FetchError: No name of a hub model, the folder holds another model or revision, or see `vggt_quant.data.fetch`.
        WeightsError: The hub refuses, or the model is no VGGT.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
        raise FetchError(f"{repo!r} is no hub model; write it as owner/name, for example facebook/VGGT-1B.")
    folder = to / repo.rpartition("/")[2]
    if manifest := manifest_of(folder):
        _require_same(folder, manifest, repo, revision)
        print(f"{folder} is complete ({repo}, commit {manifest['commit']}); nothing was fetched.")
        return
    with workplace(folder) as work:
        source = hub_source(repo, revision, partial(_put, repo, work))
        assert source.revision is not None
        content = work / source.revision
        files = {path.name: path.stat().st_size for path in sorted(content.iterdir())}
        wish = {"repo": repo, "revision": revision, "commit": source.revision}
        finish(content, folder, {**wish, "endpoint": constants.ENDPOINT, "files": files})
    print(f"{folder} is complete ({repo}, commit {source.revision}).")


def _require_same(folder: Path, manifest: dict[str, Any], repo: str, revision: str) -> None:
    if manifest.get("repo") != repo or revision not in (manifest.get("revision"), manifest.get("commit")):
        raise FetchError(
            f"{folder} holds {manifest.get('repo')} at revision {manifest.get('revision')}, not {repo} at "
            f"{revision}; delete it, or choose another --to."
        )


def _put(repo: str, work: Path, filename: str, revision: str | None) -> hub.HubFile | None:
    """Put a file of the repository into work/COMMIT; None if it has no such file."""
    if filename.endswith(".json"):
        return _put_small(repo, work, filename, revision)
    announced = hub.look_up(repo, filename, revision=revision)
    if announced is None:
        return None
    path = work / announced.commit / filename
    path.parent.mkdir(exist_ok=True)
    cure = "check the network, HF_ENDPOINT and HF_TOKEN"
    fetch_checked(announced.url, path, partial(_check, announced), cure=cure, headers=announced.headers)
    return hub.HubFile(path=path, commit=announced.commit)


def _put_small(repo: str, work: Path, filename: str, revision: str | None) -> hub.HubFile | None:
    cached = hub.fetch(repo, filename, revision=revision)
    if cached is None:
        return None
    path = work / cached.commit / filename
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(cached.path, path)
    return hub.HubFile(path=path, commit=cached.commit)


def _check(announced: hub.Announced, path: Path) -> None:
    size = path.stat().st_size
    if announced.size not in (None, size):
        raise DamagedError(f"it has {size} bytes, and the hub announced {announced.size}")
    if announced.sha256 and hub.sha256_of_file(path) != announced.sha256:
        raise DamagedError("its sha256 is not the one that the hub announced")
