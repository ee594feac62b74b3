"""`vggt-quant report`: write the results of all steps as JSON, text and a picture."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli import flags
from vggt_quant.variants import expect_variants, load_variants

HELP = "gather the results into comparison_report.json, comparison_summary.txt and comparison_plots.png"


def add_flags(command: ArgumentParser) -> None:
    """Where the results are, which variants, where the report goes."""
    text = "folder of the results (default: results)"
    command.add_argument("--results", type=Path, metavar="FOLDER", default=Path("results"), help=text)
    text = "folder of the logs and status files (default: logs)"
    command.add_argument("--logs", type=Path, metavar="FOLDER", default=Path("logs"), help=text)
    text = "calibration.json, if there are scenes to calibrate with"
    command.add_argument("--calibration", type=Path, metavar="FILE", help=text)
    text = "variants, in the order of the report"
    flags.variants(command, text, required=True)
    flags.variants_file(command)
    text = "folder that gets the three files (default: the results folder)"
    command.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    command.add_argument("--partial", action="store_true", help="some results are missing: mark the report as partial")


def run(args: Namespace) -> None:
    """Write the three files; a complete report removes the partial one of an earlier run.

    Raises:
        ValueError: No such results folder, or a variant that neither the variants file nor any result names.
    """
    from vggt_quant.report.collect import write_report
    from vggt_quant.report.comparison_table import summary

    out = args.output or args.results
    if not args.results.is_dir():
        raise ValueError(f"There are no results in {args.results}: no such folder; give --results.")
    _expect_known(args.variants, args.results, args.variants_file)
    settings = {"partial": args.partial, "calibration": args.calibration}
    report = write_report(args.results, args.logs, args.variants, out, **settings)
    if not args.partial:
        shutil.rmtree(Path(args.results) / "partial", ignore_errors=True)
    print(summary(report))


def _expect_known(names: list[str], results: Path, variants_file: Path | None) -> None:
    """Refuse a variant that neither the variants file nor any result names."""
    measured = [file.stem for stage in ("quantize", "accuracy", "speed") for file in results.glob(f"{stage}/*.json")]
    if unmeasured := [name for name in names if name not in measured]:
        defined = load_variants(variants_file)
        expect_variants(unmeasured, [*defined, *sorted(set(measured) - set(defined))])
