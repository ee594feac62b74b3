# inputs    every result
# outputs   comparison_report.json, comparison_summary.txt, comparison_plots.png
NAMES = ",".join(VARIANTS)
CALIBRATION_FLAG = "--calibration" if CALIBRATION else ""
REPORT = (
    f"{VGGT_QUANT} report --results {shlex.quote(RESULTS)} --logs {shlex.quote(LOGS)} --variants {NAMES}"
    f" --variants-file {shlex.quote(VARIANTS_FILE)} {CALIBRATION_FLAG} {shlex.quote(CALIBRATION) if CALIBRATION else ''}"
)


rule report:
    """Gather all results into the three files that people read."""
    input:
        shared=[result(f"{name}.json") for name in ("model", "images", "reference")],
        calibration=CALIBRATION or [],
        variants=[result(f"{stage}/{name}.json") for stage in ("quantize", "accuracy", "speed") for name in VARIANTS],
    output:
        REPORT_FILES,
    log:
        f"{LOGS}/report.log",
    params:
        variants=list(VARIANTS),
        calibration=CALIBRATION or "",
        code=KEYS["report"],
    # The folders come from the files' paths, because Snakemake downloads results on S3 to another folder.
    shell:
        '{VGGT_QUANT} report --results "$(dirname {input.shared[0]:q})" --logs {LOGS:q} --variants {NAMES}'
        ' --variants-file {VARIANTS_FILE:q} {CALIBRATION_FLAG} {input.calibration:q} --output "$(dirname {output[0]:q})" > {log:q} 2>&1'
