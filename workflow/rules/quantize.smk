# inputs    model.json
# outputs   quantize/V.json; the packed checkpoint lies in the cache under its key
for variant in VARIANTS:

    rule:
        name:
            f"quantize_{variant}"
        input:
            model=result("model.json"),
        output:
            result(f"quantize/{variant}.json"),
        log:
            out=f"{LOGS}/quantize_{variant}.log",
            status=f"{LOGS}/quantize_{variant}.status.json",
        benchmark:
            f"{BENCHMARKS}/quantize_{variant}.jsonl"
        params:
            variant=variant,
            limit=memory_limit(variant),
            code=KEYS["quantize"][variant],
        threads: THREADS
        resources:
            gpu=GPU,
        shell:
            "{VGGT_QUANT} quantize --model {input.model:q} --variant {params.variant} --variants-file {VARIANTS_FILE:q}"
            " --cache {CACHE:q} --device {DEVICE} {params.limit}"
            " --result {output:q} --status {log.status:q} > {log.out:q} 2>&1"
