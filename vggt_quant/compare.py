"""`vggt-quant compare`: the whole workflow in one command, from a folder of photos to the report."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import yaml

from vggt_quant import machine, typed_json
from vggt_quant.gpus import visible_gpus
from vggt_quant.variants import load_variants, packaged


def command(args: Namespace) -> int:
    """Write the run's configuration into the output folder, start Snakemake on it, print the summary.

    Returns:
        Snakemake's exit code.

    Raises:
        ValueError: A method or device that does not exist.
    """
    out = args.output_dir.absolute()
    config = out / "config.yaml"
    typed_json.write_text(yaml.safe_dump(configuration(args), sort_keys=False), config)
    code = subprocess.run([*snakemake(config, out), *(["--dry-run"] if args.dry_run else [])]).returncode
    summary = out / ("partial" if code else ".") / "comparison_summary.txt"
    if summary.is_file() and not args.dry_run:
        print(summary.read_text(encoding="utf-8"))
    logs = out / "logs"
    print(
        f"Some steps failed; why is in {logs}. The next run repeats only those." if code else f"Everything is in {out}."
    )
    return code


def configuration(args: Namespace) -> dict:
    """The workflow's config.yaml; folders and files as absolute paths, since the workflow runs in the output folder."""
    variants = load_variants(args.variants)
    methods = [name for names in args.methods for name in names] if args.methods else None
    unknown = [name for name in methods or [] if name not in variants]
    if unknown:
        raise ValueError(f"There is no method {', '.join(unknown)}; there are {', '.join(variants)}.")
    machine.resolve_device(args.device)
    return {
        "model": _absolute(args.model_name),
        "images": {
            "folder": _absolute(args.image_folder),
            "max_images": args.max_images,
            "mode": args.image_mode,
        },
        "device": args.device,
        "methods": methods,
        "variants_file": str(args.variants.absolute()) if args.variants else None,
        "cache_dir": str(args.cache_dir.absolute()) if args.cache_dir else "cache",
        "results_dir": ".",
    }


def snakemake(config: Path, folder: Path) -> list[str]:
    """The command line of the workflow that came with this package, run in `folder`."""
    workflow = packaged("workflow")
    gpus = f"gpu={max(1, len(visible_gpus()))}"
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(workflow / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(config), "--cores", "all"),
        *("--workflow-profile", str(workflow / "profiles" / "default"), "--resources", gpus, "timing=1"),
    ]


def _absolute(name: str) -> str:
    """A path that exists as an absolute one; a hub id or the name of a small model as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name
