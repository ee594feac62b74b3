"""`vggt-quant compare`: the whole workflow in one command, from a folder of photos to the report."""

import functools
import importlib.util
import operator
import os
import platform
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import yaml

from vggt_quant.results.files import write_text
from vggt_quant.runtime import jobs, locks, machine
from vggt_quant.runtime.gpus import visible_gpus
from vggt_quant.variants import load_variants, packaged

OWN_NAMES = ("drawn", "tiny", "tiny-outliers")
"""Words that mean the same in a folder that holds a file of that name."""

PROFILE = "VGGT_QUANT_PROFILE"
"""The environment variable that names the workflow profile where no flag does."""

DECISIVE = {
    "--model-name": ("model",),
    "--image-folder": ("images", "folder"),
    "--max-scenes": ("images", "max_scenes"),
    "--max-images": ("images", "max_images"),
    "--image-mode": ("images", "mode"),
    "--calibration-folder": ("calibration", "folder"),
}
"""The flags that make another comparison of it, and where each stands in the configuration."""


def command(args: Namespace) -> int:
    """Write the run's configuration into the output folder, start Snakemake on it, print the summary.

    Returns:
        Snakemake's exit code.

    Raises:
        ValueError: A method, device, workflow profile or image folder that does not exist; an output folder that
            another run works in, or that holds results of another model or other photos.
    """
    out = args.output_dir.absolute()
    profile = find_profile(args.workflow_profile or os.environ.get(PROFILE) or "default")
    if not profile.is_remote:  # else the workflow asks for one that the cluster has
        machine.resolve_device(args.device)
    settings = configuration(args)
    with locks.sole_run(out):
        # The results there are not made by the settings of a dry run.
        config = out / (".dry-run.yaml" if args.dry_run else "config.yaml")
        if not args.dry_run:
            expect_same_comparison(settings, out)
        write_text(yaml.safe_dump(settings, sort_keys=False), config)
        words = snakemake(config, out, profile)
        remove_stale_lock(words, out)
        code = jobs.run_child([*words, *(["--dry-run"] if args.dry_run else [])])
    if args.dry_run:
        return code
    # After a failure the workflow itself has printed the partial summary, if it came that far.
    if code == 0:
        print((out / "comparison_summary.txt").read_text(encoding="utf-8"))
        print(f"Everything is in {out}; comparison_plots.png there shows it.")
    else:
        print(f"The comparison in {out} is not complete; the same command goes on from here.", file=sys.stderr)
    return code


def configuration(args: Namespace) -> dict:
    """The workflow's config.yaml; folders and files as absolute paths, since the workflow runs in the output folder."""
    variants = load_variants(args.variants)
    methods = [name for names in args.methods for name in names] if args.methods else None
    unknown = [name for name in methods or [] if name not in variants]
    if unknown:
        raise ValueError(f"There is no method {', '.join(unknown)}; there are {', '.join(variants)}.")
    _expect_folder("--image-folder", args.image_folder, "drawn")
    # Rooms say nothing about photos, and drawing them at VGGT-1B's 518 pixels takes a minute.
    calibration = args.calibration_folder or ("drawn" if args.image_folder == "drawn" else "none")
    _expect_folder("--calibration-folder", calibration, "drawn", "none")
    return {
        "model": _absolute(args.model_name),
        "images": {
            "folder": _absolute(args.image_folder),
            "max_scenes": args.max_scenes,
            "max_images": args.max_images,
            "mode": args.image_mode,
        },
        "calibration": {
            "folder": None if calibration == "none" else _absolute(calibration),
        },
        "device": args.device,
        "methods": list(dict.fromkeys(methods)) if methods else None,
        "variants_file": str(args.variants.absolute()) if args.variants else None,
        "cache_dir": str(args.cache_dir.absolute()) if args.cache_dir else "cache",
        "results_dir": ".",
    }


def expect_same_comparison(settings: dict, folder: Path) -> None:
    """Keep results from being replaced by those of another model, other photos or another calibration.

    Other methods, another device or profile only add results or repeat some. A folder in which nothing was finished has
    nothing to lose.

    Raises:
        ValueError: Results of another comparison lie in `folder`, or a config.yaml that is not one of `compare`.
    """
    file = folder / "config.yaml"
    if not file.exists():
        return
    earlier, now = _read_decisive(file), _decisive(settings)
    differences = [f"{flag} {earlier[flag]}, not {now[flag]}" for flag in DECISIVE if earlier[flag] != now[flag]]
    has_results = any(any(folder.glob(f"{stage}/*.json")) for stage in ("quantize", "accuracy", "speed"))
    if differences and has_results:
        cure = "choose another --output-dir, or delete that folder"
        raise ValueError(f"{folder} holds results for {' and '.join(differences)}: {cure}.")


def _read_decisive(file: Path) -> dict[str, str]:
    try:
        return _decisive(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not one that compare wrote: choose another --output-dir, or delete it.") from error


def _decisive(settings: dict) -> dict[str, str]:
    """What makes it this comparison and no other, by flag.

    Raises:
        KeyError, TypeError: `settings` are no configuration of `compare`.
    """
    values = {flag: functools.reduce(operator.getitem, place, settings) for flag, place in DECISIVE.items()}
    return {flag: "none" if value is None else str(value) for flag, value in values.items()}


def _expect_folder(flag: str, folder: str, *words: str) -> None:
    if folder not in words and not Path(folder).is_dir():
        raise ValueError(
            f"There is no folder {folder}; {flag} takes a folder of photos or scenes, or {' or '.join(words)}."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A workflow profile of Snakemake: who runs the jobs, and how."""

    folder: Path
    settings: dict

    @property
    def is_remote(self) -> bool:
        """Whether other machines than this one run the jobs."""
        return self.settings.get("executor", "local") != "local"


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
            f"Workflow profile {name} keeps results in {storage}, but compare keeps them in --output-dir:"
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


def _read_profile(file: Path, shipped: list[str]) -> dict:
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


def snakemake(config: Path, folder: Path, profile: Profile) -> list[str]:
    """The command line of the workflow that came with this package, run in `folder`."""
    is_bounded = profile.settings.keys() & {"cores", "jobs"}
    # A cluster counts its GPUs itself. In this machine each job leases one.
    gpus = [] if profile.is_remote else [f"gpu={max(1, len(visible_gpus()))}"]
    return [
        *(sys.executable, "-P", "-m", "snakemake", "--snakefile", str(packaged("workflow") / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(config), *([] if is_bounded else ["--cores", "all"])),
        *("--workflow-profile", str(profile.folder), "--resources", *gpus, "timing=1"),
        *("--quiet", "host", "reason"),
    ]


def remove_stale_lock(words: list[str], folder: Path) -> None:
    """Remove the lock that a killed Snakemake left behind, and note whose run the next one would be.

    Called by the holder of `folder`, so nobody on this machine is at work there. Another machine may share the folder
    without sharing the knowledge of locks; its lock is left to people.

    Raises:
        ValueError: The lock is another machine's.
    """
    owner = locks.lock_of(folder).read_text(encoding="utf-8").strip()
    left = folder / ".snakemake" / "locks"
    if left.is_dir() and any(left.iterdir()):
        if owner != platform.node():
            cure = f"if it has ended, delete {left} and run again"
            raise ValueError(f"A run on {owner or 'an unknown machine'} left {folder} locked: {cure}.")
        subprocess.run([*words, "--unlock"], capture_output=True)
        print("The last run was killed; this one goes on from where it was.", file=sys.stderr)
    locks.lock_of(folder).write_text(platform.node() + "\n", encoding="utf-8")


def _absolute(name: str) -> str:
    """A path that exists as an absolute one; a hub id as it is, and `drawn` and the package's models always."""
    return name if name in OWN_NAMES or not Path(name).exists() else str(Path(name).absolute())
