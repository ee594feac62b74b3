"""A copy of package, workflow and configuration, so that tests can edit it, and a working directory to run it in.

Two scenes with ground truth are compared on, and a third is there to calibrate with.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from PIL import Image
from small_run import write_known_scenes

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-P", "-m", "snakemake"]


class Project:
    """The copy. `run` is the working directory; methods, variants and scenes are files that tests edit."""

    def __init__(self, root, variants, **config):
        for folder in ("vggt_quant", "workflow", "config"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.root, self.run = root, root / "run"
        self.variants = root / "config" / "variants.yaml"
        self.scenes = write_known_scenes(root / "scenes", "court", "tower")
        self.run.mkdir()
        settings = {
            "model": "nano-random",
            "images": {"folder": str(self.scenes)},
            "calibration": {"folder": str(write_known_scenes(root / "others", "hall"))},
            **config,
        }
        (root / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
        self.variants.write_text(yaml.safe_dump(variants, sort_keys=False))

    def add_photo(self, scene):
        """Put one more photo into a scene and return its path."""
        path = self.root / scene / "images" / "dslr_images_undistorted" / "DSC_9999.PNG"
        Image.radial_gradient("L").resize((112, 84)).convert("RGB").save(path)
        return path

    def command(self, *words):
        return [*SNAKEMAKE, "--snakefile", str(self.root / "workflow" / "Snakefile"), "--cores", "2", *words]

    def environment(self, **extra):
        return {**os.environ, "PYTHONPATH": str(self.root), **extra}

    def snakemake(self, *words, **environment):
        """Run it to its end."""
        return subprocess.run(
            self.command(*words), cwd=self.run, env=self.environment(**environment), capture_output=True, text=True
        )

    def would_run(self, *words, **environment):
        """The rules of a dry run."""
        planned = self.snakemake("--dry-run", *words, **environment)
        assert planned.returncode == 0, said(planned)
        return rules(planned)

    @contextlib.contextmanager
    def edited(self, file, old, new):
        """Replace a text in a file of the copy while the block runs; the times of the file come back, too."""
        path = self.root / file
        before, times = path.read_text(), path.stat()
        assert old in before
        path.write_text(before.replace(old, new, 1))
        try:
            yield
        finally:
            path.write_text(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def said(process):
    """All it printed: Snakemake logs to stderr, but in a dry run to stdout."""
    return process.stdout + process.stderr


def rules(process):
    """Names of the rules that ran or would run."""
    return set(re.findall(r"^(?:local)?rule (\w+):$", said(process), re.M)) - {"all"}


def described(process):
    """What a dry run says of each rule: name -> its block of text."""
    blocks = re.split(r"\n(?=\[|\n)", said(process))
    found = [(re.search(r"^(?:local)?rule (\w+):$", block, re.M), block) for block in blocks]
    return {match[1]: block for match, block in found if match}
