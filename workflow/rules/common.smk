# Configuration, variants, and what each stage depends on. Every rule gets only what it needs, through `params`.
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from jsonschema import ValidationError
from snakemake.utils import validate

# A checkout has workflow/ and config/ side by side, an installed package _workflow/ and _config/.
SHIPPED_CONFIG = Path(workflow.basedir).parent / Path(workflow.basedir).name.replace("workflow", "config")


configfile: str(SHIPPED_CONFIG / "config.yaml")


def check(data, schema, name):
    """Hold data to a schema; what is wrong becomes one line that names the place and, if a key is unknown, all keys."""
    try:
        validate(data, f"../schemas/{schema}")
    except WorkflowError as error:
        wrong = error.__context__
        if not isinstance(wrong, ValidationError):
            raise
        place = f"{name}{wrong.json_path.removeprefix('$')}"
        known = ", ".join(wrong.schema.get("properties", ())) if wrong.validator == "additionalProperties" else ""
        raise WorkflowError(f"{place}: {wrong.message}" + (f"; the keys are {known}" if known else "") + ".")


check(config, "config.schema.yaml", "config")

VGGT_QUANT = f"{shlex.quote(sys.executable)} -P -m vggt_quant"
VARIANTS_FILE = str(config["variants_file"] or SHIPPED_CONFIG / "variants.yaml")
CACHE = config["cache_dir"]


def result(name):
    """Path of a file in the results folder."""
    return os.path.normpath(os.path.join(config["results_dir"], name))


RESULTS = result("")
LOGS = result("logs")
BENCHMARKS = result("benchmarks")
REPORT_FILES = [result(f"comparison_{name}") for name in ("report.json", "summary.txt", "plots.png")]


CALIBRATION = result("calibration.json") if config["calibration"]["folder"] not in (None, "none") else None


def limits(settings):
    """The flags that take only so many scenes, and only so many photos of each."""
    named = {"--max-scenes": settings["max_scenes"], "--max-images": settings["max_images"]}
    return " ".join(f"{flag} {limit}" for flag, limit in named.items() if limit)


def refuse_results_of_elsewhere():
    """Snakemake takes files that it has no record of for up to date, so results of a run elsewhere would be believed."""
    runs_elsewhere = RESULTS != "." and Path(RESULTS, ".snakemake").is_dir()
    has_records = Path(".snakemake/metadata").is_dir() and not runs_elsewhere
    if workflow.is_main_process and Path(result("model.json")).exists() and not has_records:
        raise WorkflowError(
            f"{RESULTS} holds results that were not made from this working directory, so nobody can tell what they depend"
            " on. Choose another results_dir (compare: --output-dir) or delete them; the cache may stay."
        )


def read_variants(path):
    """The variants file, checked against its schema."""
    try:
        variants = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WorkflowError(f"Cannot read the variants in {path}: {error}")
    if not isinstance(variants, dict):
        raise WorkflowError(f"{path} should map names of variants to their settings, but holds {variants!r}.")
    check(variants, "variants.schema.yaml", path)
    return variants


def chosen_variants(variants, names, device):
    """The variants to compare, in the order asked for; where none is, those whose `default` is true or this device."""
    unknown = [name for name in names or [] if name not in variants]
    if unknown:
        raise WorkflowError(f"There is no variant {', '.join(unknown)}; {VARIANTS_FILE} has {', '.join(variants)}.")
    usual = [name for name, variant in variants.items() if variant.get("default", True) in (True, device)]
    return {name: variants[name] for name in names or usual}


def refuse_to_guess_the_device():
    """On a cluster (--jobs without --cores) each machine would answer for itself what `auto` means."""
    asked = workflow.resource_settings
    is_cluster = asked.nodes is not None and asked.cores is None
    if workflow.is_main_process and is_cluster and config["device"] == "auto":
        raise WorkflowError(
            "Other machines run the jobs, and nobody here knows what they have: set device to cuda or cpu, e.g. by"
            " --config device=cuda (compare: --device cuda)."
        )


def ask_for_keys():
    """What each stage of each variant depends on: hashes of sources and settings, which the rules carry as params."""
    # With --jobs a cluster may run the jobs; its machines without a GPU read this file, too.
    is_elsewhere = workflow.resource_settings.nodes is not None or not workflow.is_main_process
    command = (
        f"{VGGT_QUANT} keys --variants {shlex.quote(VARIANTS_FILE)} --device {config['device']}"
        f" {'--elsewhere' if is_elsewhere else ''}"
    )
    run = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if run.returncode:
        raise WorkflowError(run.stderr.strip())
    return json.loads(run.stdout)


def digest_of(path):
    """Hash of name, size and time of every file behind a path, so that a changed photo or weight file is seen.

    Hidden files do not count, nor what this workflow writes: somebody may well run it inside the folder of photos.
    """
    path = Path(path)
    own = {Path(folder).resolve() for folder in (RESULTS, CACHE)} - {path.resolve()}
    seen = []
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not is_hidden and own.isdisjoint(file.resolve().parents):
            seen.append([str(file), file.stat().st_size, file.stat().st_mtime_ns])
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


refuse_results_of_elsewhere()
refuse_to_guess_the_device()
ALL_VARIANTS = read_variants(VARIANTS_FILE)
KEYS = ask_for_keys()
DEVICE = KEYS["device"]
VARIANTS = chosen_variants(ALL_VARIANTS, config["methods"], DEVICE)
GPU = 1 if DEVICE == "cuda" else 0
# Without --cores (a cluster, --summary) those of this machine.
CORES = workflow.resource_settings.cores or os.cpu_count()


def jobs_at_once():
    """At most two untimed jobs, or one for each GPU of --resources gpu=N: each may hold the whole model in memory."""
    asked = workflow.resource_settings.resources
    gpus = getattr(asked["gpu"], "value", asked["gpu"]) if "gpu" in asked else 1
    return max(2, GPU * gpus)


THREADS = max(1, CORES // jobs_at_once())


def memory_limit(variant):
    """The flag that ends a job which needs more memory than its variant allows."""
    limit = VARIANTS[variant].get("memory_limit_mb")
    return f"--memory-limit-mb {limit}" if limit else ""
