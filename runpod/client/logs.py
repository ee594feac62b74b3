"""`logs`: the lines of a pod, as Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import http.client
import json
import logging
import time
from collections.abc import Iterator

from runpod.client import output, pods
from runpod.client.api import Api, quoted
from runpod.client.errors import RunpodError

logger = logging.getLogger(__name__)

SILENCE_S = 5.0
"""RunPod's stream has no end: so long without a line means that the old ones are all there."""
POLL_S = 2.0


def show(api: Api, name: str, *, follow: bool, tail: int, silence_s: float = SILENCE_S, poll_s: float = POLL_S) -> None:
    """Print the last `tail` lines, and with `follow` those to come until the pod ends.

    Raises:
        RunpodError: there is no such pod.
    """
    pod = pods.find(api, name)
    if pod is None:
        raise RunpodError(f"There is no pod {name}; see `python -m runpod status`.")
    path = f"/pods/{quoted(pod['id'])}/logs"
    last = ""
    while True:
        for identifier, line in _lines(api, path, tail, last, silence_s):
            output.say(line)
            last = identifier
        if not follow:
            return
        pod = pods.find(api, pod["id"])
        if pod is None or pod.get("status") in ("EXITED", "ERROR"):
            output.note(f"Pod {name} is {pod['status'] if pod else 'gone'}.")
            return
        time.sleep(poll_s)


def _lines(api: Api, path: str, tail: int, last: str, silence_s: float) -> Iterator[tuple[str, str]]:
    """The (id, text) of lines after the one with id `last`, until the stream ends or is silent."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    with api.open(path, headers, silence_s, tail=tail) as response:
        for identifier, text in _events(response, silence_s):
            # The line with the id that one resumes from may come once more.
            if identifier != last or not last:
                yield identifier or last, _line(text)


def _events(response: http.client.HTTPResponse, silence_s: float) -> Iterator[tuple[str, str]]:
    """The (id, data) of events; comments that keep the connection alive do not count as signs of life."""
    identifier, data, heard = "", [], time.monotonic()
    while time.monotonic() - heard < silence_s:
        try:
            raw = response.readline()
        except (OSError, http.client.HTTPException) as error:
            logger.debug("the log stream paused: %r", error)
            break
        line = raw.decode(errors="replace").rstrip("\r\n")
        if line.startswith("id:"):
            identifier = line[3:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield identifier, "\n".join(data)
            data, heard = [], time.monotonic()
        if not raw:
            break
    if data:
        yield identifier, "\n".join(data)


def _line(data: str) -> str:
    """The text of an event's JSON payload; the payload itself if it is something else."""
    try:
        payload = json.loads(data)
    except ValueError:
        return data
    if not isinstance(payload, dict) or "line" not in payload:
        return data
    return f"{payload.get('ts', '')} {payload['line']}".strip()
