"""Fetches single files from the Hugging Face Hub, and says in one sentence why a fetch failed.

Idea: `huggingface_hub` does the transfer (cache, resuming a cut connection, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN, a progress bar only on a terminal). It writes to an `.incomplete` name and renames, so a failed or killed
download never looks finished. Two things are added: the free disk space is checked before a transfer starts, and a
file that was just transferred is hashed, because over plain HTTP the library compares only its length.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    _CACHED_NO_EXIST,
    DryRunFileInfo,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, and not in __all__

# errors.HTTPError is httpx's base class in huggingface_hub 1.x and httpx2's in 2.x; Xet reports RuntimeErrors.
HTTP_ERROR = hub_errors.HTTPError  # type: ignore[attr-defined]  # its home is another library from version to version
FAILURES = (hub_errors.HfHubHTTPError, HTTP_ERROR, hub_errors.HFValidationError, OSError, RuntimeError)


class WeightsError(ValueError):
    """Weights cannot be found, read or used; the message names the file and the cure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a hub repository that lies complete in the local cache."""

    path: Path
    commit: str


def fetch(repo: str, filename: str, *, revision: str | None = None, offline: bool = False) -> HubFile | None:
    """Return the cached copy of a file, downloading it first if need be; None if the repository has no such file.

    Args:
        repo: "owner/name".
        filename: a file in the repository's top folder.
        revision: branch, tag or commit; the default branch if None.
        offline: never ask the network; HF_HUB_OFFLINE=1 does the same.

    Raises:
        WeightsError: the hub, its answer, the network or the disk does not allow it.
    """
    offline = offline or constants.HF_HUB_OFFLINE
    try:
        plan = hf_hub_download(repo, filename, revision=revision, local_files_only=offline, dry_run=True)
        if not plan.is_cached:
            _check_free_space(repo, plan)
        path = Path(hf_hub_download(repo, filename, revision=revision, local_files_only=offline))
    except hub_errors.RemoteEntryNotFoundError:
        return None
    except FAILURES as error:
        if isinstance(error, hub_errors.LocalEntryNotFoundError) and _is_known_absent(repo, filename, revision):
            return None
        raise WeightsError(f"Cannot fetch {filename} of {repo!r}: {_explain(error, repo, offline)}.") from error
    if not plan.is_cached:
        _check_transfer(path, repo)
    return HubFile(path=path, commit=path.parent.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Announced:
    """What the hub says of a file before it sends it: for those who transfer it themselves.

    Attributes:
        url: Where it is to be had.
        headers: To send along; they may hold the user's token.
        commit: The commit that it is of.
        size: Its number of bytes, if the hub says so.
        sha256: Of its bytes; None for small files, which the hub keeps under another hash.
    """

    url: str
    headers: dict[str, str]
    commit: str
    size: int | None
    sha256: str | None


def look_up(repo: str, filename: str, *, revision: str | None = None) -> Announced | None:
    """Ask the hub about a file; None if the repository has no such file.

    Raises:
        WeightsError: The hub, its answer or the network does not allow it.
    """
    try:
        asked = get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision), retry_on_errors=True)
    except hub_errors.RemoteEntryNotFoundError:
        return None
    except FAILURES as error:
        raise WeightsError(f"Cannot fetch {filename} of {repo!r}: {_explain(error, repo, offline=False)}.") from error
    if asked.commit_hash is None:
        raise WeightsError(f"{constants.ENDPOINT} does not answer as a Hugging Face hub does; check HF_ENDPOINT.")
    return Announced(
        url=hf_hub_url(repo, filename, revision=asked.commit_hash),
        headers=build_hf_headers(),
        commit=asked.commit_hash,
        size=asked.size,
        sha256=asked.etag if asked.etag and re.fullmatch("[0-9a-f]{64}", asked.etag) else None,
    )


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read as a stream."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_known_absent(repo: str, filename: str, revision: str | None) -> bool:
    """Whether an earlier answer of the hub, remembered in the cache, said that the repository lacks the file."""
    return try_to_load_from_cache(repo, filename, revision=revision) is _CACHED_NO_EXIST


def _check_free_space(repo: str, plan: DryRunFileInfo) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if plan.file_size and plan.file_size > free:
        raise WeightsError(
            f"Cannot fetch {plan.filename} of {repo!r}: it needs {plan.file_size / 1e9:.2f} GB and {cache} has "
            f"{free / 1e9:.2f} GB free; free some space, or point HF_HOME at a larger disk."
        )


def _check_transfer(path: Path, repo: str) -> None:
    """Compare a new file with the sha256 that the hub announced for it, and remove it if they differ."""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) is None or sha256_of_file(blob) == blob.name:
        return
    path.unlink()
    blob.unlink(missing_ok=True)
    raise WeightsError(
        f"{path.name} of {repo!r} arrived damaged: its sha256 is not the one announced by {constants.ENDPOINT}; "
        "the file was removed, so run the same command again."
    )


def _explain(error: Exception, repo: str, offline: bool) -> str:
    """Say why a fetch failed and what to do, without a final full stop."""
    endpoint, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, hub_errors.GatedRepoError):
        return f"the model is gated; ask for access at {endpoint}/{repo}, then {log_in}"
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        return f"{endpoint} has no such model, or it is private; check the name, or {log_in}"
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return "the model has no such revision; check the branch, tag or commit"
    if isinstance(error, hub_errors.LocalEntryNotFoundError):
        if offline:
            return f"it is not in the cache {cache} and offline mode forbids a download; fetch it once with a network"
        return f"{endpoint} cannot be reached and {cache} has no copy; check the network and HF_ENDPOINT"
    if isinstance(error, hub_errors.HfHubHTTPError):
        status = error.response.status_code
        cure = f"the token may be wrong, so {log_in}" if status in (401, 403) else "try again later"
        return f"{endpoint} answered with HTTP status {status}; {cure}"
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE=1 forbids a download; unset it"
    if isinstance(error, hub_errors.HFValidationError):
        return "this is no valid model name; write it as owner/name"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk of {cache} is full; free some space, or point HF_HOME at a larger disk"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror} ({error.filename or cache}); check HF_HOME"
    cause = str(error).strip().split("\n")[0] or type(error).__name__
    return f"the download broke off ({cause}); run the same command again"
