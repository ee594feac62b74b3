"""`template apply`: the template of this name is as template.json says, however often that is asked for."""

from typing import Any

from runpod.client import output
from runpod.client.api import Api, Json, quoted
from runpod.client.creation import Creation
from runpod.client.errors import RunpodError


def apply(api: Api, template: dict[str, Any]) -> None:
    """Create the template, or change what differs in the one of its name."""
    found = find(api, template["name"])
    if found is None:
        _create(api, template)
        return
    changes = {key: value for key, value in template.items() if found.get(key) != value}
    if not changes:
        output.say(f"Template {template['name']} ({found['id']}) is up to date.")
        return
    api.update(f"/templates/{quoted(found['id'])}", changes)
    output.say(f"Updated {', '.join(sorted(changes))} of template {template['name']} ({found['id']}).")


def _create(api: Api, template: dict[str, Any]) -> None:
    name = template["name"]
    with Creation(
        api=api,
        path="/templates",
        kind="template",
        name=name,
        listed=lambda: named(api, name),
        where_seen="the same command again finds it",
        how_ended="delete {id} in RunPod's console",
    ) as creation:
        created = creation.ask(template)
        output.say(f"Created template {name} ({created['id']}).")
    creation.check_alone(created)


def named(api: Api, name: str) -> list[Json]:
    """The templates of this name."""
    return [template for template in api.items("/templates", "templates") if template["name"] == name]


def find(api: Api, name: str) -> Json | None:
    """The template of this name; None if there is none.

    Raises:
        RunpodError: there are several.
    """
    found = named(api, name)
    if len(found) > 1:
        ids = ", ".join(template["id"] for template in found)
        raise RunpodError(f"Several templates are called {name!r} ({ids}); rename all but one in RunPod's console.")
    return found[0] if found else None
