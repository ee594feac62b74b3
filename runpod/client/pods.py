"""`pod up` and `down`: rent one pod for a run on the first GPU that can be had, and give it back."""

import time
from typing import Any

from runpod.client import catalog, cost, output, settings, templates, variables, volumes
from runpod.client.api import Api, Json, quoted
from runpod.client.creation import Creation
from runpod.client.errors import RefusedError, RunpodError
from runpod.client.settings import PodSettings


def up(api: Api, pod: PodSettings, *, another: bool, max_price: float | None, wait_s: float) -> None:
    """Create the run's pod and say how to reach it.

    Args:
        api: the account.
        pod: what to rent.
        another: whether it may be a further one for this run.
        max_price: the most that its GPUs may cost together, USD per hour.
        wait_s: so long to wait until it runs.
    """
    name = _free_name(api, pod.name, another=another)
    template = templates.find(api, pod.template)
    if template is None:
        raise RunpodError(f"There is no template {pod.template!r}; run `python -m runpod template apply` first.")
    volume = volumes.find(api, pod.volume.name)
    if volume is None:
        raise RunpodError(f"There is no volume {pod.volume.name!r}; run `python -m runpod volume create` first.")
    settings.check_image(str(template.get("image")))
    prices = catalog.prices(api)
    pod = cost.affordable(pod, prices.get, max_price)
    with _creation(api, name) as creation:
        created = _create_first_possible(creation, create_bodies(pod, name, template, volume), prices)
        _say_how_to_reach(created, name)
    creation.check_alone(created)
    if wait_s:
        _wait_until_running(api, created["id"], name, wait_s)


def create_bodies(pod: PodSettings, name: str, template: Json, volume: Json) -> list[Json]:
    """The requests to try, one for each GPU of the list.

    Raises:
        ValueError: the pod would work outside its volume, or the template has a variable that it does not take.
    """
    env = {**(template.get("env") or {}), **pod.env}
    variables.check(env)
    common = {
        "name": name,
        "templateId": template["id"],
        "cloud": pod.cloud,
        # A network volume can only be mounted where it lies.
        "dataCenterIds": [volume["dataCenter"]],
        "mounts": {"network": [{"volumeId": volume["id"], "path": pod.volume.path}]},
        # start.sh keeps the results of runs apart by their name, and lets one pod at a time work on each.
        "env": {"VGGT_RUN_NAME": name, **pod.env, "VGGT_WORKSPACE": settings.workspace(env, pod.volume.path)},
    }
    gpus = [{"id": gpu, "count": pod.gpuCount, "minCudaVersion": pod.minCudaVersion} for gpu in pod.gpus]
    return [{**common, "gpu": gpu} for gpu in gpus]


def _free_name(api: Api, name: str, *, another: bool) -> str:
    """The run's name, or with `another` the first of name-2, name-3, ... that no pod bears.

    Every pod of ours has its own name, so that one whose creation was not confirmed can be found by it.
    """
    taken = {pod["name"]: pod for pod in living(api)}
    if name not in taken:
        return name
    if not another:
        there = taken[name]
        raise RunpodError(
            f"Run {name} has a pod already ({there['id']}, {there.get('status')}); end it by "
            f"`python -m runpod down {name} --terminate`, or start one more by --another."
        )
    return next(f"{name}-{number}" for number in range(2, len(taken) + 3) if f"{name}-{number}" not in taken)


def _creation(api: Api, name: str) -> Creation:
    return Creation(
        api=api,
        path="/pods",
        kind="pod",
        name=name,
        listed=lambda: [pod for pod in living(api) if pod["name"] == name],
        where_seen=f"`python -m runpod status` shows what costs money, `python -m runpod down {name}` ends it",
        how_ended="`python -m runpod down {id} --terminate`",
    )


def _create_first_possible(creation: Creation, bodies: list[Json], prices: dict[str, float]) -> Json:
    """Try the bodies in order.

    RunPod says 400 both for no capacity and for broken rules, with nothing but words to tell them apart, and 403 for a
    pool that the account may not use; so these lead to the next GPU and the last words are shown. All else ends here.
    """
    for body in bodies:
        gpu = body["gpu"]["id"]
        price = f"${prices[gpu] * body['gpu']['count']:.2f}/h" if gpu in prices else "a price that is not known"
        output.note(f"Asking for {body['gpu']['count']} x {gpu} at {price}.")
        try:
            return creation.ask(body)
        except RefusedError as error:
            if error.status not in (400, 403):
                raise
            output.note(f"{gpu}: not to be had ({error.detail}).")
            detail = error.detail
    gpus = ", ".join(body["gpu"]["id"] for body in bodies)
    raise RunpodError(
        f"No GPU of the list ({gpus}) can be had in {bodies[0]['dataCenterIds'][0]} ({detail}); try later, "
        "other GPUs by --gpu, or a volume in another data center."
    )


def _say_how_to_reach(pod: Json, name: str) -> None:
    gpu = pod.get("gpu") or {}
    output.say(
        f"Pod {name} ({pod['id']}): {gpu.get('count', 1)} x {gpu.get('id')} in {pod.get('dataCenterId')}, "
        f"${hourly(pod):.2f}/h, {pod.get('status')}."
    )
    output.say(f"  ssh   {ssh_command(pod) or 'address not known yet; see status'}")
    output.say(f"  logs  python -m runpod logs {name} --follow")
    output.say(f"  end   python -m runpod down {name}")


def _wait_until_running(api: Api, identifier: str, name: str, wait_s: float) -> None:
    start = time.monotonic()
    while time.monotonic() - start < wait_s:
        pod = api.get(f"/pods/{quoted(identifier)}")
        if pod.get("status") == "RUNNING":
            output.say(f"Running after {time.monotonic() - start:.0f} s: {ssh_command(pod) or 'no ssh'}")
            return
        if pod.get("status") in ("ERROR", "EXITED", "TERMINATED"):
            raise RunpodError(f"Pod {name} is {pod['status']}; see `python -m runpod logs {name}`.")
        time.sleep(min(api.pace.poll_s, wait_s))
    raise RunpodError(
        f"Pod {name} does not run after {wait_s:g} s but costs already; see `python -m runpod logs {name}`."
    )


def down(api: Api, name: str, how: str | None) -> None:
    """Stop or terminate a pod; nothing happens if it is so already.

    Args:
        api: the account.
        name: name or id of the pod.
        how: `stop`, `terminate`, or None to terminate if a network volume keeps the data and stop otherwise.
    """
    pod = find(api, name)
    if pod is None:
        others = ", ".join(f"{other['name']} ({other['id']})" for other in living(api)) or "none"
        output.say(f"There is no pod {name}; nothing to do. Pods that exist: {others}.")
        return
    if (how or default_ending(pod)) == "terminate":
        _terminate(api, pod)
    else:
        _stop(api, pod)


def default_ending(pod: Json) -> str:
    """Terminate what keeps its data on a network volume: a stopped pod may never get its machine's GPU again."""
    return "terminate" if (pod.get("mounts") or {}).get("network") else "stop"


def _terminate(api: Api, pod: Json) -> None:
    try:
        api.delete(f"/pods/{quoted(pod['id'])}")
    except RefusedError as error:
        if error.status != 404:
            raise
    output.say(f"Terminated pod {pod['name']} ({pod['id']}); a network volume stays and goes on costing.")


def _stop(api: Api, pod: Json) -> None:
    path = f"/pods/{quoted(pod['id'])}"
    if pod.get("status") != "EXITED":
        try:
            api.act(f"{path}/action", {"action": "stop"})
        except RefusedError as error:
            # Someone else, or our own repeated request, may have been quicker.
            if error.status != 409 or api.get(path).get("status") != "EXITED":
                raise
    output.say(f"Pod {pod['name']} ({pod['id']}) is stopped; its volume disk goes on costing until it is terminated.")


def living(api: Api) -> list[Json]:
    """The account's pods that are not terminated."""
    return [pod for pod in api.items("/pods", "pods") if pod.get("status") != "TERMINATED"]


def find(api: Api, name: str) -> Json | None:
    """The pod of this name or id; None if there is none.

    Raises:
        RunpodError: several bear the name.
    """
    found = [pod for pod in living(api) if name in (pod["name"], pod["id"])]
    if len(found) > 1:
        ids = ", ".join(pod["id"] for pod in found)
        raise RunpodError(f"Several pods are called {name!r} ({ids}); give the id instead of the name.")
    return found[0] if found else None


def hourly(pod: Json) -> float:
    """USD per hour at present."""
    cost: Any = pod.get("cost")
    return float(cost) if isinstance(cost, int | float) else 0.0


def ssh_command(pod: Json) -> str | None:
    """How to log in: directly if possible, since RunPod's proxy carries no files."""
    ssh = pod.get("ssh") or {}
    endpoint = ssh.get("direct") or ssh.get("proxy") or {}
    return endpoint.get("command")
