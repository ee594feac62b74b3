"""A copy of the project's package that a test may add files to, and commands that run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNWANTED = shutil.ignore_patterns("__pycache__", ".snakemake")


class PackageCopy:
    """`vggt_quant/`, `workflow/` and `config/` in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("vggt_quant", "workflow", "config"):
            shutil.copytree(ROOT / name, folder / name, ignore=UNWANTED)

    def add(self, path: str, text: str) -> None:
        """Drop a new file; a path that exists is a mistake of the test."""
        file = self.folder / path
        assert not file.exists() and file.parent.is_dir(), file
        file.write_text(text, encoding="utf-8")

    def run(self, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a command line of Python (`-c`, code or `-m`, module, ...) in which the copy is the package."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "TRITON_INTERPRET": "1"}
        command = [sys.executable, "-P", *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, **settings)

    def vggt_quant(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `vggt-quant`."""
        return self.run("-m", "vggt_quant", *words)
