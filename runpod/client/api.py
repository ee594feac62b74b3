"""HTTP to RunPod's REST API v2: one key, clear errors, repeats only where a repeat does no harm.

Reading, changing to a fixed value and deleting may be repeated. Creating may not: see creation.py.
"""

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runpod.client.errors import RefusedError, RunpodError, UnansweredError

logger = logging.getLogger(__name__)

BASE_URL = "https://api.runpod.io/v2"
URL_VARIABLE = "VGGT_RUNPOD_URL"
KEY_VARIABLE = "RUNPOD_API_KEY"
ATTEMPTS = 5
LONGEST_WAIT_S = 300.0

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long to wait for what, in seconds."""

    backoff_s: float = 1.0
    """Before the first repeat; doubles with each."""
    listing_s: float = 90.0
    """So long RunPod's lists may take to show what was created."""
    poll_s: float = 5.0
    """Between two looks."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would carry the key to wherever a redirect points."""

    def redirect_request(self, *_args: object) -> None:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """A connection to one account."""

    key: str = field(repr=False)
    base_url: str = BASE_URL
    timeout_s: float = 60.0
    pace: Pace = Pace()

    def __post_init__(self):
        if not re.fullmatch(r"[\w.~+/=-]+", self.key, re.ASCII):
            # The key itself must not be shown, however wrong it is.
            raise ValueError(f"{KEY_VARIABLE} holds characters that no key has (a blank or quote?); copy it again.")
        url = urllib.parse.urlsplit(self.base_url)
        is_here = url.hostname in ("127.0.0.1", "localhost", "::1")
        if url.scheme != "https" and not (url.scheme == "http" and is_here):
            raise ValueError(f"{URL_VARIABLE} is {self.base_url!r}; use https, or the key would travel unencrypted.")

    def get(self, path: str, **query: str | int) -> Json:
        """Read one object."""
        return self._repeat(lambda: self._object("GET", _with_query(path, query)))

    def items(self, path: str, key: str, **query: str | int) -> list[Json]:
        """Read the list under `key`; each element has an id and a name."""
        elements = self.get(path, **query).get(key)
        if not isinstance(elements, list) or not all(_is_named(element) for element in elements):
            raise RunpodError(f"RunPod answered GET {path} without a list of {key}; its interface may have changed.")
        return elements

    def update(self, path: str, body: Json) -> Json:
        """Set fields of an object."""
        return self._repeat(lambda: self._object("PATCH", path, body))

    def act(self, path: str, body: Json) -> None:
        """Ask for a state that asking twice does not change (`stop`)."""
        self._repeat(lambda: self._once("POST", path, body))

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._repeat(lambda: self._once("DELETE", path))

    def create(self, path: str, body: Json) -> Json:
        """Send one request to create an object; it is not repeated here."""
        answer = self._once("POST", path, body)
        if not _is_named(answer):
            raise UnansweredError(f"RunPod answered POST {path} with no id; its interface may have changed.")
        return answer

    def open(
        self, path: str, headers: dict[str, str], timeout_s: float, **query: str | int
    ) -> http.client.HTTPResponse:
        """Open a stream; reading from it may raise OSError or HTTPException."""
        return self._repeat(lambda: self._send("GET", _with_query(path, query), None, headers, timeout_s))

    def clean(self, text: str) -> str:
        """`text` without the key, should a server send it back."""
        return text.replace(self.key, "***")

    def wait(self, error: RunpodError, number: int) -> None:
        """Sleep after the failure of attempt `number` (from 0), at least as long as RunPod asks for."""
        wait_s = max(error.retry_after_s, self.pace.backoff_s * 2**number)
        logger.debug("attempt %d failed, next in %.1f s: %s", number + 1, wait_s, error)
        time.sleep(wait_s)

    def _repeat(self, attempt: Callable[[], Any]) -> Any:
        for number in range(ATTEMPTS):
            try:
                return attempt()
            except RunpodError as error:
                if not error.may_pass or error.retry_after_s > LONGEST_WAIT_S or number == ATTEMPTS - 1:
                    raise
                self.wait(error, number)
        raise AssertionError("the last attempt returns or raises")

    def _object(self, method: str, path: str, body: Json | None = None) -> Json:
        answer = self._once(method, path, body)
        if not isinstance(answer, dict):
            raise RunpodError(f"RunPod answered {method} {path} with no object; its interface may have changed.")
        return answer

    def _once(self, method: str, path: str, body: Json | None = None) -> Any:
        """Send and read the whole answer; None if it has no body."""
        try:
            with self._send(method, path, body, {"Accept": "application/json"}, self.timeout_s) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"The answer to {method} {path} broke off ({_reason(error)}); try again.") from None
        if not content:
            return None
        try:
            return json.loads(self.clean(content.decode()))
        except ValueError:
            start = self.clean(content[:40].decode(errors="replace"))
            text = f"RunPod answered {method} {path} with {start!r}, which is no JSON; check the network"
            raise _garbled(method)(f"{text} and {URL_VARIABLE}.") from None

    def _send(
        self, method: str, path: str, body: Json | None, headers: dict[str, str], timeout_s: float
    ) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.base_url.rstrip("/") + path, method=method, headers=headers)
        # Not urllib's own name: some gateways turn it away.
        request.add_header("User-Agent", "vggt-quant-pod")
        request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        logger.debug("%s %s", method, request.full_url)
        try:
            return urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, f"{method} {path}") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached(error, f"{method} {path}", timeout_s) from None

    def _refused(self, error: urllib.error.HTTPError, request: str) -> RefusedError:
        try:
            content = self.clean(error.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            content = ""
        seconds = error.headers.get("Retry-After", "")
        return RefusedError(
            error.code, _detail(content, error.reason), request, float(seconds) if seconds.isdigit() else 0
        )

    def _unreached(self, error: OSError | http.client.HTTPException, request: str, timeout_s: float) -> RunpodError:
        """What went wrong before an answer began; urllib wraps in URLError what it met while sending the request."""
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return UnansweredError(
                f"RunPod did not answer {request} within {timeout_s:g} s; try again or raise --timeout."
            )
        if cause is not error and (isinstance(cause, ConnectionRefusedError) or not _is_reset(cause)):
            return RunpodError(
                f"{self.base_url} cannot be reached ({_reason(cause)}); check the network and {URL_VARIABLE}."
            )
        return UnansweredError(f"The connection broke off during {request} ({_reason(cause)}); try again.")


def from_environment(*, timeout_s: float, pace: Pace) -> Api:
    """The account of RUNPOD_API_KEY.

    Raises:
        ValueError: the key is missing or cannot be one, or the address is not https.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ValueError(
            f"{KEY_VARIABLE} is not set; make a key at https://console.runpod.io/user/settings "
            f"and export {KEY_VARIABLE}=..."
        )
    return Api(key=key, base_url=base_url(), timeout_s=timeout_s, pace=pace)


def base_url() -> str:
    """RunPod's address, or the one a test puts in its place."""
    return os.environ.get(URL_VARIABLE) or BASE_URL


def quoted(identifier: str) -> str:
    """An id as a part of a path."""
    return urllib.parse.quote(identifier, safe="")


def _with_query(path: str, query: dict[str, str | int]) -> str:
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path


def _is_named(element: object) -> bool:
    return isinstance(element, dict) and all(isinstance(element.get(key), str) for key in ("id", "name"))


def _garbled(method: str) -> type[RunpodError]:
    """After a POST something may have been created; a GET that answers with a web page will do so again."""
    return UnansweredError if method == "POST" else RunpodError


def _is_reset(cause: object) -> bool:
    return isinstance(cause, ConnectionError | http.client.HTTPException)


def _reason(error: object) -> str:
    return str(error) or type(error).__name__


def _detail(content: str, fallback: str) -> str:
    """RunPod's explanation with its field errors, or the status's name if a gateway answered instead."""
    try:
        problem = json.loads(content)
    except ValueError:
        return fallback
    if not isinstance(problem, dict):
        return fallback
    errors = problem.get("errors")
    text = str(problem.get("detail") or problem.get("title") or fallback).rstrip(".")
    return f"{text}: {'; '.join(map(str, errors))}" if isinstance(errors, list) and errors else text
