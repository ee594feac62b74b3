"""`vggt-quant compare`: the whole workflow in one command, from a folder of photos to the report."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import yaml

from vggt_quant.cli import flags
from vggt_quant.cli._configuration import configuration, expect_own_results, expect_same_comparison
from vggt_quant.cli._outputs import expect_output_folder
from vggt_quant.cli._profile import Profile, find_profile
from vggt_quant.cli._stale_lock import remove_stale_lock
from vggt_quant.results.files import write_text
from vggt_quant.runtime import jobs, locks, machine
from vggt_quant.runtime.gpus import visible_gpus
from vggt_quant.variants import packaged

HELP = "photos and a model in, the comparison of all variants out: the whole workflow in one command"
PROFILE = "VGGT_QUANT_PROFILE"
"""The environment variable that names the workflow profile where no flag does."""


def add_flags(command: ArgumentParser) -> None:
    """Which model, which photos, which variants, where to."""
    flags.model(command)
    flags.folder(command)
    text = "folder that gets the report and all results (default: results)"
    command.add_argument("--output", type=Path, metavar="FOLDER", default=Path("results"), help=text)
    text = "the variants to compare, e.g. int8_symmetric,int4_group64 (default: those that the file marks as such)"
    flags.variants(command, text)
    flags.variants_file(command)
    flags.limits(command)
    flags.image_mode(command)
    text = "scenes for methods that calibrate, as for --images, or none (default: for drawn rooms 8 others, else none)"
    command.add_argument("--calibration-folder", metavar="FOLDER", help=text)
    flags.cache(command, "the folder cache in --output")
    text = "who runs the jobs, and how: default, runpod, slurm, or the folder of a Snakemake profile"
    text += " (default: $VGGT_QUANT_PROFILE, else default)"
    command.add_argument("--workflow-profile", metavar="NAME_OR_FOLDER", help=text)
    command.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    flags.device(command)


def run(args: Namespace) -> int:
    """Write the run's configuration into the output folder, start Snakemake on it, print the summary.

    Returns:
        Snakemake's exit code.

    Raises:
        ValueError: A variant, device, workflow profile or image folder that does not exist; an output folder that
            cannot be written to, that another run works in, or that holds results of another model or other photos, or
            copied ones.
    """
    out = args.output.absolute()
    profile = find_profile(args.workflow_profile or os.environ.get(PROFILE) or "default")
    if not profile.is_remote:  # else the workflow asks for one that the cluster has
        machine.resolve_device(args.device)
    settings = configuration(args)
    expect_output_folder(args.output)
    with locks.sole_run(out):
        expect_own_results(out)
        expect_same_comparison(settings, out)
        # The results there are not made by the settings of a dry run.
        config = out / (".dry-run.yaml" if args.dry_run else "config.yaml")
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
