"""What a user edits: template.json (RunPod's own fields), pod.json (what to rent), and the variables of one pod."""

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from runpod.client.variables import check

FOLDER = Path(__file__).parent.parent
AUTO_STOP = ("stop", "terminate", "no")
PLACEHOLDERS = ("OWNER", "ghcr.io/you/")
"""In template.json and in the guide."""
SMALLEST_VOLUME_GB, LARGEST_VOLUME_GB = 10, 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeSettings:
    """The network volume that keeps models, checkpoints and results when pods are gone."""

    name: str
    size: int
    """GB; grows only."""
    dataCenter: str  # noqa: N815 - RunPod's spelling
    """Where it lies for good, and with it its pods."""
    path: str = "/workspace"
    """Where a pod sees it."""

    def __post_init__(self):
        if not SMALLEST_VOLUME_GB <= self.size <= LARGEST_VOLUME_GB:
            raise ValueError(f"A volume of {self.size} GB is impossible; choose 10 to 4096 GB.")
        if not re.fullmatch(r"(/[\w.-]+)+", self.path, re.ASCII) or ".." in self.path:
            raise ValueError(f"volume.path is {self.path!r}; give a whole path like /workspace.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodSettings:
    """What to rent. The keys of pod.json are these fields."""

    name: str
    """Name of the run, which its pod bears."""
    template: str
    """Name of the template, see `template apply`."""
    volume: VolumeSettings
    gpus: list[str]
    """RunPod's GPU ids, tried in this order until one can be had."""
    gpuCount: int = 1  # noqa: N815
    minCudaVersion: str = "13.0"  # noqa: N815
    """The oldest driver that may be given: the image holds a CUDA 13.0 build of torch."""
    cloud: str = "SECURE"
    """Network volumes exist in the secure cloud only."""
    env: dict[str, str]
    """Variables beyond, or instead of, the template's."""

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w.-]*", self.name, re.ASCII):
            raise ValueError(f"The run's name is {self.name!r}; use letters, digits, dots, dashes and underscores.")
        if not self.gpus:
            raise ValueError("No GPU is named; list at least one id in pod.json's gpus or give --gpu.")
        if self.gpuCount < 1:
            raise ValueError(f"gpuCount is {self.gpuCount}; choose 1 or more.")
        if self.cloud != "SECURE":
            raise ValueError(f"cloud is {self.cloud!r}; network volumes need SECURE.")
        if not re.fullmatch(r"\d+\.\d+", self.minCudaVersion):
            raise ValueError(f"minCudaVersion is {self.minCudaVersion!r}; write it like 13.0.")
        check(self.env)
        auto_stop = self.env.get("VGGT_AUTO_STOP") or "no"
        if auto_stop.lower() not in AUTO_STOP:
            raise ValueError(f"VGGT_AUTO_STOP is {auto_stop!r}; choose {', '.join(AUTO_STOP)}.")
        workspace(self.env, self.volume.path)


def read_pod(path: Path) -> PodSettings:
    """Read pod.json.

    Raises:
        ValueError: not readable, unknown or missing keys, wrong types or impossible values.
    """
    data = read_json(path)
    _check_keys(path, "", data, PodSettings, {"gpus": list, "env": dict, "gpuCount": int, "volume": dict})
    _check_keys(path, "volume.", data["volume"], VolumeSettings, {"size": int})
    for where, texts in (("gpus", data["gpus"]), ("env", data["env"].values())):
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: {where} holds something that is no text; put its values in quotes.")
    return PodSettings(**{**data, "volume": VolumeSettings(**data["volume"])})


def read_template(path: Path, image: str | None) -> dict[str, Any]:
    """Read template.json, with another image if one is given.

    Raises:
        ValueError: not readable, no name or image, or a variable that the start script does not take.
    """
    template = read_json(path)
    if image:
        template["image"] = image
    for key in ("name", "image"):
        if not isinstance(template.get(key), str) or not template[key]:
            raise ValueError(f"{path}: {key} is {template.get(key)!r}; give it a name in quotes.")
    if not isinstance(template.get("disk", 1), int):
        raise ValueError(f"{path}: disk is {template['disk']!r}; give a whole number of GB.")
    env = template.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(text, str) for text in env.values()):
        raise ValueError(f"{path}: env must give each variable a text; put its values in quotes.")
    check(env)
    return template


def check_image(image: str) -> None:
    """Refuse an image that nobody has.

    Raises:
        ValueError: the owner is still that of template.json or of the guide.
    """
    if any(owner in image for owner in PLACEHOLDERS):
        raise ValueError(
            f"The image {image!r} is a placeholder; build and push your own (step 1 of runpod/README.md) and name it "
            "by `python -m runpod template apply --image NAME`."
        )


def workspace(env: Mapping[str, str], volume_path: str) -> str:
    """Where start.sh will work: VGGT_WORKSPACE, or else the volume itself.

    Raises:
        ValueError: not on the volume.
    """
    folder = env.get("VGGT_WORKSPACE") or volume_path
    if not PurePosixPath(posixpath.normpath(folder)).is_relative_to(volume_path):
        raise ValueError(
            f"VGGT_WORKSPACE is {folder!r}, which is not on the volume at {volume_path}, so the results would be lost "
            f"with the pod; leave it out or choose {volume_path}."
        )
    return folder


def variables(assignments: Iterable[str], secrets: Iterable[str]) -> dict[str, str]:
    """Environment variables from --env NAME=VALUE and --secret NAME=secret.

    A secret is a reference that RunPod resolves in the pod; its value never passes through here.

    Raises:
        ValueError: no `=`, or a name that no variable or secret can have.
    """
    env = dict(_split("--env", text) for text in assignments)
    for name, secret in (_split("--secret", text) for text in secrets):
        if not re.fullmatch(r"\w+", secret, re.ASCII):
            # What stands there may be the secret itself: do not repeat it.
            raise ValueError(f"--secret {name}=... wants the name of a secret in RunPod's console, not its value.")
        env[name] = f"{{{{ RUNPOD_SECRET_{secret} }}}}"
    return env


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: it cannot be read or is no object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name another file.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); correct it there.") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object; begin it with a brace.")
    return data


def _check_keys(path: Path, prefix: str, data: dict[str, Any], kind: type, types: dict[str, type]) -> None:
    known = {field.name: field for field in fields(kind)}
    for key, value in data.items():
        if key not in known:
            raise ValueError(f"{path}: {prefix}{key} is unknown; choose from {', '.join(known)}.")
        wanted = types.get(key, str)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{path}: {prefix}{key} is {value!r}; it must be of type {wanted.__name__}.")
    optional = {"path", "gpuCount", "minCudaVersion", "cloud"}
    missing = [key for key in known if key not in data and key not in optional]
    if missing:
        raise ValueError(f"{path}: {prefix}{missing[0]} is missing; add it.")


def _split(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        # Do not repeat the text: it may be a secret that was given without its name.
        raise ValueError(f"{option} wants NAME=VALUE, where NAME consists of letters, digits and _.")
    return name, value
