"""`vggt-quant compare`: the whole workflow in one command, from a folder of photos to the report."""

import contextlib
import os
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import yaml

from vggt_quant import jobs, machine, typed_json
from vggt_quant.gpus import visible_gpus
from vggt_quant.variants import load_variants, packaged

OWN_NAMES = ("drawn", "tiny", "tiny-outliers")
"""Words that mean the same in a folder that holds a file of that name."""


def command(args: Namespace) -> int:
    """Write the run's configuration into the output folder, start Snakemake on it, print the summary.

    Returns:
        Snakemake's exit code.

    Raises:
        ValueError: A method, device or image folder that does not exist; an output folder that another run works in.
    """
    out = args.output_dir.absolute()
    settings = configuration(args)
    with sole_run(out):
        config = out / "config.yaml"
        typed_json.write_text(yaml.safe_dump(settings, sort_keys=False), config)
        words = snakemake(config, out)
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
    machine.resolve_device(args.device)
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


def _expect_folder(flag: str, folder: str, *words: str) -> None:
    if folder not in words and not Path(folder).is_dir():
        raise ValueError(
            f"There is no folder {folder}; {flag} takes a folder of photos or scenes, or {' or '.join(words)}."
        )


def snakemake(config: Path, folder: Path) -> list[str]:
    """The command line of the workflow that came with this package, run in `folder`."""
    workflow = packaged("workflow")
    gpus = f"gpu={max(1, len(visible_gpus()))}"
    return [
        *(sys.executable, "-P", "-m", "snakemake", "--snakefile", str(workflow / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(config), "--cores", "all"),
        *("--workflow-profile", str(workflow / "profiles" / "default"), "--resources", gpus, "timing=1"),
        *("--quiet", "host", "reason"),
    ]


@contextlib.contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run, by a lock that Snakemake inherits and that ends with the last of both.

    Raises:
        ValueError: Another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(_lock(folder), "a", encoding="utf-8") as file:
        try:
            is_locked = machine.try_lock(file)
        except BlockingIOError as error:
            cure = "wait for its end, or choose another --output-dir"
            raise ValueError(f"Another comparison is at work in {folder}: {cure}.") from error
        if not is_locked:
            print(f"The disk of {folder} knows no locks: see that no other run works there.", file=sys.stderr)
        os.set_inheritable(file.fileno(), True)
        yield


def remove_stale_lock(words: list[str], folder: Path) -> None:
    """Remove the lock that a killed Snakemake left behind, and note whose run the next one would be.

    Called by the holder of `folder`, so nobody on this machine is at work there. Another machine may share the folder
    without sharing the knowledge of locks; its lock is left to people.

    Raises:
        ValueError: The lock is another machine's.
    """
    owner = _lock(folder).read_text(encoding="utf-8").strip()
    locks = folder / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        if owner != platform.node():
            cure = f"if it has ended, delete {locks} and run again"
            raise ValueError(f"A run on {owner or 'an unknown machine'} left {folder} locked: {cure}.")
        subprocess.run([*words, "--unlock"], capture_output=True)
        print("The last run was killed; this one goes on from where it was.", file=sys.stderr)
    _lock(folder).write_text(platform.node() + "\n", encoding="utf-8")


def _lock(folder: Path) -> Path:
    return folder / ".vggt-quant.lock"


def _absolute(name: str) -> str:
    """A path that exists as an absolute one; a hub id as it is, and `drawn` and the package's models always."""
    return name if name in OWN_NAMES or not Path(name).exists() else str(Path(name).absolute())
