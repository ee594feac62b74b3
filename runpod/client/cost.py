"""What a pod and a volume cost, estimated from the prices in prices.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runpod.client import output
from runpod.client.errors import RunpodError
from runpod.client.settings import PodSettings, read_json

HOURS_PER_MONTH = 730
FIRST_GB = 1000
"""Network volumes are cheaper beyond the first TB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """The content of prices.json."""

    gpus: dict[str, dict[str, Any]]
    first_gb_month: float
    further_gb_month: float
    disk_gb_month: float
    recheck: str

    def gpu_hour(self, gpu: str) -> float | None:
        """USD per hour for one GPU in the secure cloud; None if not listed."""
        return self.gpus.get(gpu, {}).get("usd_per_hour_secure")

    def volume_month(self, size_gb: int) -> float:
        """USD per month for a network volume, used or not."""
        return min(size_gb, FIRST_GB) * self.first_gb_month + max(size_gb - FIRST_GB, 0) * self.further_gb_month

    def read_dates(self, gpus: Sequence[str]) -> str:
        """When the prices of these GPUs were read."""
        dates = sorted({self.gpus[gpu]["read"] for gpu in gpus if gpu in self.gpus})
        return " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "never"


def read_prices(path: Path) -> Prices:
    """Read prices.json.

    Raises:
        ValueError: not readable or incomplete.
    """
    data = read_json(path)
    try:
        volume, disk = data["network_volume"], data["container_disk"]
        return Prices(
            gpus=data["gpus"],
            first_gb_month=volume["usd_per_gb_month_first_1000_gb"],
            further_gb_month=volume["usd_per_gb_month_beyond"],
            disk_gb_month=disk["usd_per_gb_month"],
            recheck=data["recheck"],
        )
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing; restore it from the repository.") from None


def affordable(pod: PodSettings, price: Callable[[str], float | None], max_price: float | None) -> PodSettings:
    """`pod` with those GPUs of its list that cost no more; which are left out is said.

    Args:
        pod: what to rent.
        price: USD per hour for one GPU, None if not known.
        max_price: USD per hour for all GPUs of the pod together; None for no limit.

    Raises:
        RunpodError: none is left.
    """
    if max_price is None:
        return pod
    left = []
    for gpu in pod.gpus:
        hour = price(gpu)
        if hour is None:
            output.note(f"{gpu}: left out; its price is not known, so it may be above --max-price {max_price:g}.")
        elif hour * pod.gpuCount > max_price:
            output.note(f"{gpu}: left out; ${hour * pod.gpuCount:.2f}/h is above --max-price {max_price:g}.")
        else:
            left.append(gpu)
    if not left:
        raise RunpodError(
            f"No GPU of the list costs ${max_price:g}/h or less; raise --max-price, or name others by --gpu (see "
            "`python -m runpod gpus`)."
        )
    return replace(pod, gpus=left)


def pod_estimate(prices: Prices, pod: PodSettings, *, hours: float, disk_gb: int) -> list[str]:
    """Lines that say what `hours` hours of the pod cost on each GPU of its list."""
    disk = disk_gb * prices.disk_gb_month / HOURS_PER_MONTH
    lines = [f"Estimate for {hours:g} h, {disk_gb} GB of container disk included:"]
    known = {gpu: price * pod.gpuCount + disk for gpu in pod.gpus if (price := prices.gpu_hour(gpu)) is not None}
    for gpu in pod.gpus:
        if gpu in known:
            lines.append(f"  {gpu}: ${known[gpu]:.2f}/h x {hours:g} h = ${known[gpu] * hours:.2f}")
        else:
            lines.append(f"  {gpu}: not in prices.json; see `python -m runpod gpus`")
    if len(known) > 1:
        least, most = min(known.values()), max(known.values())
        lines.append(f"  The first that can be had is rented: ${least:.2f}/h to ${most:.2f}/h; --max-price limits it.")
    lines.append(f"  {volume_estimate(prices, pod.volume.size)}")
    lines.append(f"Prices read {prices.read_dates(pod.gpus)}; recheck at {prices.recheck}.")
    return lines


def volume_estimate(prices: Prices, size_gb: int) -> str:
    """One line on what a volume costs."""
    return f"volume of {size_gb} GB: ${prices.volume_month(size_gb):.2f}/month for as long as it exists"
