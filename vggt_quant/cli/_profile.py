"""Workflow profiles of Snakemake: they decide where the jobs of a comparison run."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vggt_quant.variants import packaged


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A workflow profile of Snakemake: who runs the jobs, and how."""

    folder: Path
    settings: dict[str, Any]

    @property
    def is_remote(self) -> bool:
        """Whether other machines than this one run the jobs."""
        return bool(self.settings.get("executor", "local") != "local")


def find_profile(name: str) -> Profile:
    """A profile of this package by its name, or any other by its folder.

    Raises:
        ValueError: No such profile, or one that `compare` cannot use; the sentence says what to do instead.
    """
    shipped = sorted(path.parent.name for path in (packaged("workflow") / "profiles").glob("*/config.yaml"))
    folder = packaged("workflow") / "profiles" / name if name in shipped else Path(name).absolute()
    profile = Profile(folder=folder, settings=_read_profile(folder / "config.yaml", shipped))
    if storage := profile.settings.get("default-storage-provider"):
        raise ValueError(
            f"Workflow profile {name} keeps results in {storage}, but compare keeps them in --output:"
            " call snakemake itself with that profile, as docs/cluster.md says."
        )
    if profile.is_remote:
        _expect_plugin(name, str(profile.settings["executor"]))
    return profile


def _expect_plugin(profile: str, executor: str) -> None:
    if not importlib.util.find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}"):
        raise ValueError(
            f"Workflow profile {profile} runs jobs by {executor}, which is not installed here:"
            f" pip install snakemake-executor-plugin-{executor}."
        )


def _read_profile(file: Path, shipped: list[str]) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(
            f"There is no workflow profile {file}; give {', '.join(shipped)} or a folder that holds a config.yaml."
        )
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read the workflow profile {file}: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} should map Snakemake's flags to values, but holds {settings!r}.")
    return settings
