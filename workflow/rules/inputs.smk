# inputs    the model's name or files; a folder of photos
# outputs   model.json, images.json (+ the preprocessed tensor), reference.json (the fp32 outputs lie in the cache)


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
        "{VGGT_QUANT} model --model {params.name:q} --out {output:q} --status {log.status:q} > {log.out:q} 2>&1"


rule images:
    """Find the photos and preprocess them once for all variants."""
    input:
        model=result("model.json"),
    output:
        result=result("images.json"),
        tensor=result("images.safetensors"),
    log:
        out=f"{LOGS}/images.log",
        status=f"{LOGS}/images.status.json",
    params:
        folder=config["images"]["folder"],
        limit=f"--max-images {config['images']['max_images']}" if config["images"]["max_images"] else "",
        mode=config["images"]["mode"],
        files=digest_of(config["images"]["folder"]),
        code=KEYS["images"],
    shell:
        "{VGGT_QUANT} images --image-folder {params.folder:q} {params.limit} --image-mode {params.mode}"
        " --model {input.model:q} --out {output.result:q} --status {log.status:q} > {log.out:q} 2>&1"


rule reference:
    """Run the original model in float32 on the photos."""
    input:
        model=result("model.json"),
        images=result("images.json"),
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
        " --out {output:q} --status {log.status:q} > {log.out:q} 2>&1"
