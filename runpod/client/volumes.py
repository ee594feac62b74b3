"""`volume create`: a network volume of this name exists and is at least so large. Volumes never shrink or move."""

from runpod.client import output
from runpod.client.api import Api, Json, quoted
from runpod.client.creation import Creation
from runpod.client.errors import RunpodError
from runpod.client.settings import VolumeSettings


def ensure(api: Api, wanted: VolumeSettings) -> None:
    """Create the volume, or let the one of its name grow."""
    found = find(api, wanted.name)
    if found is None:
        _create(api, wanted)
        return
    if found["dataCenter"] != wanted.dataCenter:
        raise RunpodError(
            f"Volume {wanted.name} ({found['id']}) lies in {found['dataCenter']} and cannot move to "
            f"{wanted.dataCenter}; choose another --name or that --data-center."
        )
    if wanted.size <= found["size"]:
        output.say(f"Volume {wanted.name} ({found['id']}) has {found['size']} GB already; volumes only grow.")
        return
    api.update(f"/network-volumes/{quoted(found['id'])}", {"size": wanted.size})
    output.say(f"Volume {wanted.name} ({found['id']}) grew from {found['size']} to {wanted.size} GB.")


def _create(api: Api, wanted: VolumeSettings) -> None:
    with Creation(
        api=api,
        path="/network-volumes",
        kind="volume",
        name=wanted.name,
        listed=lambda: named(api, wanted.name),
        where_seen="`python -m runpod status` shows it, and it costs money from the start",
        how_ended="delete {id} in RunPod's console",
    ) as creation:
        created = creation.ask(create_body(wanted))
        output.say(f"Created volume {wanted.name} ({created['id']}): {wanted.size} GB in {wanted.dataCenter}.")
    creation.check_alone(created)


def create_body(wanted: VolumeSettings) -> Json:
    """The request that creates the volume."""
    return {"name": wanted.name, "size": wanted.size, "dataCenter": wanted.dataCenter}


def named(api: Api, name: str) -> list[Json]:
    """The volumes of this name or id."""
    volumes = api.items("/network-volumes", "networkVolumes")
    return [volume for volume in volumes if name in (volume["name"], volume["id"])]


def find(api: Api, name: str) -> Json | None:
    """The volume of this name or id; None if there is none.

    Raises:
        RunpodError: several bear the name, or RunPod does not say how large or where it is.
    """
    found = named(api, name)
    if len(found) > 1:
        ids = ", ".join(volume["id"] for volume in found)
        raise RunpodError(f"Several volumes are called {name!r} ({ids}); give the id instead of the name.")
    if found and not (isinstance(found[0].get("size"), int) and isinstance(found[0].get("dataCenter"), str)):
        raise RunpodError(f"RunPod tells no size or data center of volume {name!r}; its interface may have changed.")
    return found[0] if found else None
