# inputs    model.json, images.json (with its tensors), reference.json, quantize/V.json
# outputs   accuracy/V.json, speed/V.json
for variant in VARIANTS:

    rule:
        name:
            f"accuracy_{variant}"
        input:
            model=result("model.json"),
            images=result("images.json"),
            prepared=result("images_prepared"),
            reference=result("reference.json"),
            packed=result(f"quantize/{variant}.json"),
        output:
            result(f"accuracy/{variant}.json"),
        log:
            out=f"{LOGS}/accuracy_{variant}.log",
            status=f"{LOGS}/accuracy_{variant}.status.json",
        benchmark:
            f"{BENCHMARKS}/accuracy_{variant}.jsonl"
        params:
            variant=variant,
            limit=memory_limit(variant),
            code=KEYS["accuracy"][variant],
        threads: THREADS
        resources:
            gpu=GPU,
        shell:
            "{VGGT_QUANT} accuracy --model {input.model:q} --images {input.images:q} --reference {input.reference:q}"
            " --packed {input.packed:q} --variant {params.variant} --variants-file {VARIANTS_FILE:q} --device {DEVICE}"
            " {params.limit} --result {output:q} --status {log.status:q} > {log.out:q} 2>&1"

    # A timing takes all cores and the `timing` resource, so that nothing else runs at the same time.
    rule:
        name:
            f"speed_{variant}"
        input:
            images=result("images.json"),
            prepared=result("images_prepared"),
            packed=result(f"quantize/{variant}.json"),
        output:
            result(f"speed/{variant}.json"),
        log:
            out=f"{LOGS}/speed_{variant}.log",
            status=f"{LOGS}/speed_{variant}.status.json",
        benchmark:
            f"{BENCHMARKS}/speed_{variant}.jsonl"
        params:
            variant=variant,
            limit=memory_limit(variant),
            code=KEYS["speed"][variant],
        threads: CORES
        resources:
            gpu=GPU,
            timing=1,
        shell:
            "{VGGT_QUANT} speed --images {input.images:q}"
            " --packed {input.packed:q} --variant {params.variant} --variants-file {VARIANTS_FILE:q} --device {DEVICE}"
            " {params.limit} --result {output:q} --status {log.status:q} > {log.out:q} 2>&1"
