# inputs    every result
# outputs   comparison_report.json, comparison_summary.txt, comparison_plots.png
REPORT = (
    f"{VGGT_QUANT} report --results {shlex.quote(RESULTS)} --logs {shlex.quote(LOGS)} --methods {','.join(VARIANTS)}"
    + (f" --calibration {shlex.quote(CALIBRATION)}" if CALIBRATION else "")
)


rule report:
    """Gather all results into the three files that people read."""
    input:
        [result(f"{name}.json") for name in ("model", "images", "reference")],
        CALIBRATION or [],
        [result(f"{stage}/{name}.json") for stage in ("quantize", "accuracy", "speed") for name in VARIANTS],
    output:
        REPORT_FILES,
    log:
        f"{LOGS}/report.log",
    params:
        methods=list(VARIANTS),
        calibration=CALIBRATION or "",
        code=KEYS["report"],
    shell:
        "{REPORT} --output-dir {RESULTS:q} > {log:q} 2>&1"
