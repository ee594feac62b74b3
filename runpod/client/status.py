"""`status`: what is rented and what it costs."""

import datetime

from runpod.client import output, pods
from runpod.client.api import Api, Json
from runpod.client.cost import Prices


def show(api: Api, prices: Prices) -> None:
    """Print the account's pods and network volumes."""
    now = datetime.datetime.now(datetime.UTC)
    living = pods.living(api)
    if living:
        head = ("POD", "ID", "STATUS", "GPU", "WHERE", "$/H", "UP", "COST SO FAR", "SSH")
        output.show_table(head, [_pod_row(pod, now) for pod in living])
    else:
        output.say("No pods.")
    volumes = api.items("/network-volumes", "networkVolumes")
    if volumes:
        head = ("VOLUME", "ID", "GB", "WHERE", "$/MONTH")
        output.show_table(head, [_volume_row(volume, prices) for volume in volumes])
    output.say(f"All pods together: ${sum(map(pods.hourly, living)):.2f}/h.")


def uptime_s(pod: Json, now: datetime.datetime) -> float | None:
    """Seconds since the pod was last started; None if it does not run.

    What is paid begins when the machine is assigned, so the start counts and not the container's own up-time, which
    leaves out the pull of the image.
    """
    if pod.get("status") not in ("STARTING", "RUNNING"):
        return None
    try:
        start = datetime.datetime.fromisoformat(pod.get("startedAt") or pod["createdAt"])
        return max((now - start).total_seconds(), 0.0)
    except (KeyError, TypeError, ValueError):
        return None


def _pod_row(pod: Json, now: datetime.datetime) -> tuple[str, ...]:
    seconds = uptime_s(pod, now)
    gpu = pod.get("gpu") or {}
    return (
        pod["name"],
        pod["id"],
        str(pod.get("status")),
        f"{gpu.get('count', 1)} x {gpu['id']}" if gpu.get("id") else "cpu",
        str(pod.get("dataCenterId") or "-"),
        f"{pods.hourly(pod):.2f}",
        "-" if seconds is None else f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}",
        "-" if seconds is None else f"${pods.hourly(pod) * seconds / 3600:.2f}",
        pods.ssh_command(pod) or "-",
    )


def _volume_row(volume: Json, prices: Prices) -> tuple[str, ...]:
    size = volume.get("size")
    month = f"{prices.volume_month(size):.2f}" if isinstance(size, int) else "-"
    return (volume["name"], volume["id"], str(size), str(volume.get("dataCenter")), month)
