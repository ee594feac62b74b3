"""What runpod/README.md and its translation say about the size of a run is what the configuration makes of it."""

import json
import os
import re
import subprocess

import pytest
import yaml
from processes import COMMAND, install_driver
from small_run import write_known_scenes
from test_runpod_guide import GUIDES, ROOT

AS_LARGE_AS = {
    "fp8": "int8_symmetric",
    "int8_w8a8": "int8_symmetric",
    "int8_w8a8_asymmetric": "int8_asymmetric",
    "int4_w4a8": "int4_group128",
}
"""Variants whose checkpoints nobody has weighed, and ones with as many bits and scales."""


def on_a_gpu():
    """What config/variants.yaml compares by default there."""
    every = yaml.safe_load((ROOT / "config" / "variants.yaml").read_text())
    return {name: entry for name, entry in every.items() if entry.get("default", True) in (True, "cuda")}


@pytest.mark.workflow
def test_the_jobs_of_a_run_on_a_gpu_are_as_many_as_the_guide_says(tmp_path):
    """Counted by a dry run; a stand-in for nvidia-smi says that there are GPUs."""
    write_known_scenes(tmp_path / "photos", "court")
    environment = {**os.environ, "PATH": install_driver(tmp_path / "driver")}
    counts = []
    for photos in (["--images", str(tmp_path / "photos")], []):
        command = [*COMMAND, "compare", "--dry-run", "--device", "cuda", "--output", str(tmp_path / "run"), *photos]
        said = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        counts.append(int(re.search(r"^total +(\d+)$", said.stdout + said.stderr, re.M)[1]) - 1)  # `all` does nothing
    number = len(on_a_gpu())
    for guide in GUIDES:
        text = guide.read_text()
        said = rf"\b{number}\b (variants|个变体)[^.。|]+\b{counts[0]}\b (jobs|个)[^.。|]+\b{counts[1]}\b"
        assert re.search(said, text)
        assert f"| {counts[0]} x 17 s" in text


def test_the_checkpoints_of_all_variants_take_what_the_guide_says():
    report = ROOT / "docs" / "measurements" / "2026-11-23-h100-vggt-1b-random" / "comparison_report.json"
    variants = json.loads(report.read_text())["variants"]
    weighed = {row["variant"]: row["quantize"]["checkpoint_bytes"] for row in variants}
    # Those that differ only in how they run share a checkpoint.
    checkpoints = {}
    for name, entry in on_a_gpu().items():
        checkpoints.setdefault(json.dumps({**entry, "run": None, "default": None}, sort_keys=True), name)
    total = sum(weighed[AS_LARGE_AS.get(name, name)] for name in checkpoints.values())
    assert len(checkpoints) == len(on_a_gpu()) - 2
    assert all(f" {total / 1e9:.1f} GB" in guide.read_text() for guide in GUIDES)
