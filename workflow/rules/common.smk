# Configuration, variants, and what each stage depends on. Every rule gets only what it needs, through `params`.
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from snakemake.utils import validate

# A checkout has workflow/ and config/ side by side, an installed package _workflow/ and _config/.
SHIPPED_CONFIG = Path(workflow.basedir).parent / Path(workflow.basedir).name.replace("workflow", "config")


configfile: str(SHIPPED_CONFIG / "config.yaml")


validate(config, "../schemas/config.schema.yaml")

VGGT_QUANT = f"{shlex.quote(sys.executable)} -m vggt_quant"
VARIANTS_FILE = str(config["variants_file"] or SHIPPED_CONFIG / "variants.yaml")
CACHE = config["cache_dir"]
RESULTS = os.path.normpath(config["results_dir"])
LOGS = os.path.normpath(f"{RESULTS}/logs")
BENCHMARKS = os.path.normpath(f"{RESULTS}/benchmarks")


def read_variants(path):
    """The variants file, checked against its schema."""
    try:
        variants = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WorkflowError(f"Cannot read the variants in {path}: {error}")
    validate(variants, "../schemas/variants.schema.yaml")
    return variants


def chosen_variants(variants, names):
    """The variants to compare, in the order asked for."""
    unknown = [name for name in names or [] if name not in variants]
    if unknown:
        raise WorkflowError(f"There is no variant {', '.join(unknown)}; {VARIANTS_FILE} has {', '.join(variants)}.")
    return {name: variants[name] for name in names or variants}


def ask_for_keys():
    """What each stage of each variant depends on: hashes of sources and settings, which the rules carry as params."""
    command = [sys.executable, "-m", "vggt_quant", "keys", "--variants", VARIANTS_FILE, "--device", config["device"]]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise WorkflowError(run.stderr.strip())
    return json.loads(run.stdout)


def files_of(path):
    """Name, size and time of every file behind a path, so that a changed photo or weight file is seen."""
    path = Path(path)
    if not path.exists():
        return []
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


VARIANTS = chosen_variants(read_variants(VARIANTS_FILE), config["methods"])
KEYS = ask_for_keys()
DEVICE = KEYS["device"]
GPU = 1 if DEVICE == "cuda" else 0
# At most two untimed jobs at once: each may hold the whole model in memory.
THREADS = max(1, workflow.cores // 2)


def memory_limit(variant):
    """The flag that ends a job which needs more memory than its variant allows."""
    limit = VARIANTS[variant].get("memory_limit_mb")
    return f"--memory-limit-mb {limit}" if limit else ""
