"""Creating what may cost money: once, though an answer can be lost and RunPod's lists can be late.

RunPod takes no key by which it would know a repeated request. So what is created bears a name that was free, and when
an answer is lost the list is watched for that name before the request is sent again. If two of the name show up in
the end, both are left as they are and the user is told: one of them may be what an earlier, interrupted command asked
for, and a pod cannot be brought back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from runpod.client import output
from runpod.client.api import LONGEST_WAIT_S, Api, Json
from runpod.client.errors import RunpodError

REQUESTS = 3
"""Sent at most for one body."""


@dataclass(kw_only=True, slots=True)
class Creation:
    """One thing in the making. When its `with` block fails, the user reads that the thing may exist, if it may."""

    api: Api
    path: str
    kind: str
    """What it is, for messages."""
    name: str
    listed: Callable[[], list[Json]]
    """Those of this name that RunPod lists. There was none when this began, so each is of our making, or nearly."""
    where_seen: str
    """How the user finds out whether it exists."""
    how_ended: str
    """How the user ends the one with the id `{id}`."""
    open_requests: int = 0
    """Requests that were carried out or, as far as is known here, may have been."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and self.open_requests:
            output.note(f"warning: a {self.kind} {self.name} may exist all the same; {self.where_seen}.")

    def ask(self, body: Json) -> Json:
        """Create it; or find it, if an answer was lost. Another body may be tried when one is refused.

        Raises:
            RunpodError: refused, or not confirmed after some requests, or the list cannot be read meanwhile.
        """
        for number in range(REQUESTS):
            try:
                return self._request(body)
            except RunpodError as error:
                found = self._watch(self._listed) if error.may_be_done else []
                if found:
                    return found[0]
                if not error.may_pass or error.retry_after_s > LONGEST_WAIT_S or number == REQUESTS - 1:
                    raise
                self.api.wait(error, number)
        raise AssertionError("the last request returns or raises")

    def check_alone(self, created: Json) -> None:
        """Look for others of this name: for a while if two requests may have been carried out, else once.

        Raises:
            RunpodError: there are some; it says how to end them.
        """

        def others() -> list[Json]:
            return [element for element in self._listed() if element["id"] != created["id"]]

        try:
            found = self._watch(others) if self.open_requests > 1 else others()
        except RunpodError as error:
            output.note(f"warning: there may be a second {self.kind} {self.name}. {error}")
            return
        if found:
            ways = ", ".join(self.how_ended.format(id=element["id"]) for element in found)
            raise RunpodError(
                f"There are {len(found) + 1} {self.kind}s {self.name}; besides {created['id']}, end those that you do "
                f"not need: {ways}."
            )

    def _request(self, body: Json) -> Json:
        if self.open_requests and (late := self._listed()):
            return late[0]
        self.open_requests += 1
        try:
            return self.api.create(self.path, body)
        except RunpodError as error:
            if not error.may_be_done:
                self.open_requests -= 1
            raise

    def _listed(self) -> list[Json]:
        """As `listed`; an error of its own, lest a refused look be taken for a refused request."""
        try:
            return self.listed()
        except RunpodError as error:
            raise RunpodError(f"Whether there is a {self.kind} {self.name} cannot be seen: {error}") from None

    def _watch(self, look: Callable[[], list[Json]]) -> list[Json]:
        """Look until something is there or the list has had its time; the last look comes after that."""
        pace = self.api.pace
        output.note(
            f"A request for {self.kind} {self.name} was not answered; watching RunPod's list for {pace.listing_s:g} s, "
            "lest there be two."
        )
        deadline = time.monotonic() + pace.listing_s
        while not (found := look()) and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(pace.poll_s, left_s))
        return found
