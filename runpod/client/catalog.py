"""RunPod's catalog of GPUs: `gpus` prints it, `pod up` reads today's prices in it."""

from runpod.client import output
from runpod.client.api import Api, Json
from runpod.client.settings import PodSettings


def show(api: Api, pod: PodSettings) -> None:
    """Print the catalog as it is for this pod's count and driver; * marks the GPUs of its list."""
    query = {"include": "AVAILABILITY", "product": "POD", "cloud": pod.cloud}
    found = api.items("/catalog/gpus", "gpus", count=pod.gpuCount, minCudaVersion=pod.minCudaVersion, **query)
    rows = [_row(gpu, pod) for gpu in sorted(found, key=_secure_price) if gpu.get("secure")]
    where = pod.volume.dataCenter
    output.show_table(("GPU", "GB", "$/H", "IN STOCK", f"IN {where}"), rows)
    output.say(f"* in the list of pod.json; price of one GPU, secure cloud, CUDA {pod.minCudaVersion} or newer.")


def prices(api: Api) -> dict[str, float]:
    """USD per hour for one GPU in the secure cloud; what has no price there is left out."""
    found = {gpu["id"]: _secure_price(gpu) for gpu in api.items("/catalog/gpus", "gpus")}
    return {gpu: price for gpu, price in found.items() if price > 0}


def _row(gpu: Json, pod: PodSettings) -> tuple[str, ...]:
    centers = {center.get("id"): center.get("availability") for center in gpu.get("dataCenters") or []}
    return (
        f"{'* ' if gpu['id'] in pod.gpus else '  '}{gpu['id']}",
        str(gpu.get("memory")),
        f"{_secure_price(gpu):.2f}",
        str(gpu.get("availability", "-")),
        str(centers.get(pod.volume.dataCenter, "-")),
    )


def _secure_price(gpu: Json) -> float:
    return float((gpu.get("price") or {}).get("secure") or 0.0)
