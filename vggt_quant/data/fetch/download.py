"""One file over HTTP: downloads resume, two versions are never mixed, and the file is written whole or not at all.

Idea: the bytes go to NAME.incomplete. NAME.origin in the same folder records where they come from: the address, the
size and the validator (the ETag if it is strong, else the date of the last change; RFC 9110, 8.8 and 13.1.5). The
missing bytes are requested with Range and If-Range. So a server that cannot resume, or whose file has changed, sends
the whole file, which replaces the partial one. A file without a validator is always fetched from its beginning. When
all announced bytes have arrived, NAME.incomplete is renamed.
"""

from __future__ import annotations

import datetime
import email.utils
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import requests

from vggt_quant.runtime.progress import transfer

logger = logging.getLogger(__name__)

TRIES = 5
"""Failures in a row, without a byte more than ever before, after which a download is given up."""

TIMEOUT_S = 60.0
"""Longest silence of a server."""

LONGEST_WAIT_S = 300.0
"""A server that asks for a longer pause (Retry-After) is not waited for."""

ABSENT = (404, 410)
PASSING_STATUS = (408, 429, 500, 502, 503, 504)
CHUNK_BYTES = 2**16

Result = TypeVar("Result")


class FetchError(ValueError):
    """Something cannot be fetched; the message says why and what to do."""


class AbsentError(FetchError):
    """The server has no such file (HTTP status 404 or 410)."""


class DamagedError(Exception):
    """A fetched file does not match what was announced; raised by the `check` of `fetch_checked`."""


class _PassingError(Exception):
    """A failure that may pass, and how long the server asks to wait, if it does."""

    def __init__(self, cause: str, wait_s: float | None = None) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class _Origin:
    """Whose bytes lie in NAME.incomplete."""

    url: str
    size: int
    validator: str | None


def fetch_checked(
    url: str,
    path: Path,
    check: Callable[[Path], Result],
    *,
    cure: str,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Download a file and check it; a damaged one is removed and downloaded once more.

    Args:
        url: The file's address.
        path: Where it goes; what is there already is checked and not fetched.
        check: Raises DamagedError for a file that is not what it should be.
        cure: What a user can do when the server does not deliver, without a full stop.
        headers: To send along, for example an authorization.

    Returns:
        What `check` returned.

    Raises:
        FetchError: The server does not deliver, the disk is too small, or the file is damaged twice.
    """
    for is_last in (False, True):
        download(url, path, cure=cure, headers=headers)
        try:
            return check(path)
        except DamagedError as damage:
            path.unlink()
            if is_last:
                raise FetchError(
                    f"{url} arrives damaged ({damage}); run the same command later, or {cure}."
                ) from damage
            logger.warning("%s arrived damaged (%s); it is fetched again.", path.name, damage)
    raise AssertionError("the loop returns or raises")


def download(url: str, path: Path, *, cure: str, headers: Mapping[str, str] | None = None) -> None:
    """Download a file unless it is there, going on with what an earlier call left; see `fetch_checked`."""
    piece = path.with_name(f"{path.name}.incomplete")
    reached, failures = 0, 0
    while not path.exists():
        try:
            _receive(url, piece, headers or {})
            os.replace(piece, path)
            _origin_file(piece).unlink()
        except _PassingError as failure:
            size = _size(piece)
            failures = 1 if size > reached else failures + 1
            reached = max(size, reached)
            _wait_or_give_up(url, failure, failures, cure)
        except requests.RequestException as error:
            kind = AbsentError if error.response is not None and error.response.status_code in ABSENT else FetchError
            raise kind(f"Cannot fetch {url}: {_first_line(error)}; {cure}.") from error


def check_free_space(folder: Path, name: str, needed: int) -> None:
    """Raise FetchError unless the disk of `folder` has room for `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{name} needs {needed / 1e9:.2f} GB and the disk of {folder} has {free / 1e9:.2f} GB free; "
            "free some space, or choose another --to."
        )


def _wait_or_give_up(url: str, failure: _PassingError, failures: int, cure: str) -> None:
    wait_s = 2.0 ** (failures - 1) if failure.wait_s is None else failure.wait_s
    if failures >= TRIES or wait_s > LONGEST_WAIT_S:
        wish = f" and asks for a pause of {wait_s:.0f} s" if wait_s > LONGEST_WAIT_S else ""
        raise FetchError(
            f"Cannot fetch {url}: {failure}{wish}; what has arrived is kept, so run the same command again later, "
            f"or {cure}."
        ) from failure
    logger.info("%s: %s; next try in %.0f s.", url, failure, wait_s)
    time.sleep(wait_s)


def _receive(url: str, piece: Path, headers: Mapping[str, str]) -> None:
    """Ask for what is missing of a file and append it."""
    origin = _read_origin(piece, url)
    start = _size(piece)
    if origin and start == origin.size:
        return
    asked = {**headers, "Accept-Encoding": "identity"}
    if origin and start:
        asked |= {"Range": f"bytes={start}-", "If-Range": str(origin.validator)}
    try:
        with (
            requests.Session() as session,
            session.get(url, headers=asked, stream=True, timeout=TIMEOUT_S) as response,
        ):
            origin, start = _begin(response, url, piece, origin, start)
            _append(response, piece, start, origin.size)
    except requests.exceptions.SSLError:
        raise  # A ConnectionError that does not pass.
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _PassingError(_first_line(error)) from error
    if _size(piece) != origin.size:
        raise _PassingError(f"{_size(piece)} bytes arrived of {origin.size}")


def _begin(
    response: requests.Response, url: str, piece: Path, origin: _Origin | None, start: int
) -> tuple[_Origin, int]:
    """Judge the answer's head; return what the body belongs to, and at which byte it begins."""
    status = response.status_code
    if status in PASSING_STATUS:
        raise _PassingError(f"the server answered with HTTP status {status}", _retry_after_s(response))
    if status == 206 and origin and _continues(response, origin, start):
        return origin, start
    if status in (206, 416):
        _discard(piece)
        raise _PassingError("the file has changed on the server")
    if status != 200:
        raise requests.HTTPError(f"the server answered with HTTP status {status}", response=response)
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        raise requests.HTTPError("the server does not say how long the file is")
    _discard(piece)  # First, so that no old byte can ever stand under the new origin.
    origin = _Origin(url=url, size=int(length), validator=_validator(response))
    _origin_file(piece).write_text(json.dumps(asdict(origin)))
    return origin, 0


def _append(response: requests.Response, piece: Path, start: int, size: int) -> None:
    name = piece.name.removesuffix(".incomplete")
    check_free_space(piece.parent, name, size - start)
    logger.info("%s: %.1f of %.1f MB to fetch.", name, (size - start) / 1e6, size / 1e6)
    with piece.open("ab") as file, transfer(name, size, start) as advance:
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            advance(len(chunk))


def _continues(response: requests.Response, origin: _Origin, start: int) -> bool:
    """Whether a partial answer is the missing end of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    same = _validator(response) in (None, origin.validator)
    return same and found is not None and (int(found[1]), int(found[2])) == (start, origin.size)


def _validator(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after_s(response: requests.Response) -> float | None:
    """The pause that a server asks for, as a number of seconds or as a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())


def _read_origin(piece: Path, url: str) -> _Origin | None:
    """What NAME.incomplete belongs to; None, and no piece any more, if it cannot be continued."""
    try:
        origin = _Origin(**json.loads(_origin_file(piece).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        origin = None
    if origin and origin.url == url and origin.validator and _size(piece) <= origin.size:
        return origin
    _discard(piece)
    return None


def _origin_file(piece: Path) -> Path:
    return piece.with_suffix(".origin")


def _discard(piece: Path) -> None:
    piece.unlink(missing_ok=True)
    _origin_file(piece).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
