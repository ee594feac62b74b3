# Configuration, variants, and what each stage depends on. Every rule gets only what it needs, through `params`.
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

# A checkout has workflow/ and config/ side by side, an installed package _workflow/ and _config/.
SHIPPED_CONFIG = Path(workflow.basedir).parent / Path(workflow.basedir).name.replace("workflow", "config")


configfile: str(SHIPPED_CONFIG / "config.yaml")


VGGT_QUANT = f"{shlex.quote(sys.executable)} -P -m vggt_quant"


def check_and_ask_for_keys():
    """The checked configuration, the variants to compare, and hashes of all that each stage of each depends on."""
    # With --jobs a cluster may run the jobs; its machines without a GPU read this file, too.
    is_elsewhere = workflow.resource_settings.nodes is not None or not workflow.is_main_process
    command = [*shlex.split(VGGT_QUANT), "keys", "--config", "-", *(["--elsewhere"] if is_elsewhere else [])]
    run = subprocess.run(command, input=json.dumps(config), capture_output=True, text=True)
    if run.returncode:
        # No WorkflowError, which would add the lines of this file.
        sys.exit(run.stderr.strip().removeprefix("vggt-quant: keys: "))
    return json.loads(run.stdout)


KEYS = check_and_ask_for_keys()
config.clear()
config.update(KEYS["config"])
DEVICE = KEYS["device"]
VARIANTS = list(KEYS["speed"])
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
    """The flags that limit the number of scenes, and of photos in each."""
    named = {"--max-scenes": settings["max_scenes"], "--max-images": settings["max_images"]}
    return " ".join(f"{flag} {limit}" for flag, limit in named.items() if limit)


def refuse_results_of_elsewhere():
    """Snakemake takes files without a record for up to date, so it would accept results of a run elsewhere."""
    runs_elsewhere = RESULTS != "." and Path(RESULTS, ".snakemake").is_dir()
    has_records = Path(".snakemake/metadata").is_dir() and not runs_elsewhere
    if workflow.is_main_process and Path(result("model.json")).exists() and not has_records:
        sys.exit(
            f"{os.path.abspath(RESULTS)} holds results that were not made from this working directory, so nobody can tell"
            " what they depend on. Choose another results_dir (compare: --output) or delete them; the cache may stay."
        )


def print_notes():
    """Once, and after the checks, because a note says what this run will do."""
    if workflow.is_main_process:
        print(*KEYS["notes"], sep="\n", end="\n" if KEYS["notes"] else "", file=sys.stderr)


def refuse_to_guess_the_device():
    """On a cluster (--jobs without --cores) each machine would answer for itself what `auto` means."""
    asked = workflow.resource_settings
    is_cluster = asked.nodes is not None and asked.cores is None
    if workflow.is_main_process and is_cluster and config["device"] == "auto":
        sys.exit(
            "Other machines run the jobs, and nobody here knows what they have: set device to cuda or cpu, e.g. by"
            " --config device=cuda (compare: --device cuda)."
        )


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
print_notes()
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
    limit = KEYS["memory_limit_mb"][variant]
    return f"--memory-limit-mb {limit}" if limit else ""
