# inputs    the model's name or files; scenes to compare on, scenes to calibrate with
# outputs   model.json, images.json and calibration.json (+ the preprocessed tensors, a file each scene),
#           reference.json (the fp32 outputs lie in the cache, a file each scene)


rule model:
    """Find (and if need be download) the weights, and identify them."""
    output:
        result("model.json"),
    log:
        out=f"{LOGS}/model.log",
        status=f"{LOGS}/model.status.json",
    params:
        name=config["model"],
        files=digest_of(config["model"]),
        code=KEYS["model"],
    shell:
        "{VGGT_QUANT} model --model {params.name:q} --result {output:q} --status {log.status:q} > {log.out:q} 2>&1"


rule images:
    """Find the scenes to compare on and preprocess them once for all variants."""
    input:
        model=result("model.json"),
    output:
        result=result("images.json"),
        # Snakemake empties this folder first, so it has a name that no folder of photos has.
        prepared=directory(result("images_prepared")),
    log:
        out=f"{LOGS}/images.log",
        status=f"{LOGS}/images.status.json",
    params:
        folder=config["images"]["folder"],
        limits=limits(config["images"]),
        mode=config["images"]["mode"],
        files=digest_of(config["images"]["folder"]),
        code=KEYS["images"],
    shell:
        "{VGGT_QUANT} images --images {params.folder:q} {params.limits} --image-mode {params.mode}"
        " --model {input.model:q} --result {output.result:q} --status {log.status:q} > {log.out:q} 2>&1"


# For methods that learn from scenes: their quantize rules will take this result as an input.
if CALIBRATION:

    rule calibration:
        """Find the scenes to calibrate with. They must share no photo with the scenes of the comparison."""
        input:
            model=result("model.json"),
            images=result("images.json"),
        output:
            result=CALIBRATION,
            prepared=directory(result("calibration_prepared")),
        log:
            out=f"{LOGS}/calibration.log",
            status=f"{LOGS}/calibration.status.json",
        params:
            folder=config["calibration"]["folder"],
            limits=limits({**config["images"], **config["calibration"]}),
            mode=config["images"]["mode"],
            files=digest_of(config["calibration"]["folder"]),
            code=KEYS["images"],
        shell:
            "{VGGT_QUANT} calibration --images {params.folder:q} {params.limits} --image-mode {params.mode}"
            " --model {input.model:q} --compared {input.images:q} --result {output.result:q} --status {log.status:q}"
            " > {log.out:q} 2>&1"


rule reference:
    """Run the original model in float32 on every scene."""
    input:
        model=result("model.json"),
        images=result("images.json"),
        prepared=result("images_prepared"),
    output:
        result("reference.json"),
    log:
        out=f"{LOGS}/reference.log",
        status=f"{LOGS}/reference.status.json",
    benchmark:
        f"{BENCHMARKS}/reference.jsonl"
    params:
        code=KEYS["reference"],
    threads: THREADS
    resources:
        gpu=GPU,
    shell:
        "{VGGT_QUANT} reference --model {input.model:q} --images {input.images:q} --cache {CACHE:q} --device {DEVICE}"
        " --result {output:q} --status {log.status:q} > {log.out:q} 2>&1"
