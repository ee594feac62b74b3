"""The lock that a killed Snakemake leaves in the output folder of a comparison."""

import platform
import subprocess
import sys
from pathlib import Path

from vggt_quant.runtime import locks


def remove_stale_lock(words: list[str], folder: Path) -> None:
    """Remove the lock that a killed Snakemake left, and write down which machine runs now.

    Called by the holder of `folder`, so no run on this machine uses it. Another machine may share the folder
    without sharing the knowledge of locks; its lock is left to people.

    Raises:
        ValueError: The lock is another machine's.
    """
    owner = locks.lock_of(folder).read_text(encoding="utf-8").strip()
    left = folder / ".snakemake" / "locks"
    if left.is_dir() and any(left.iterdir()):
        if owner != platform.node():
            cure = f"if it has ended, delete {left} and run again"
            raise ValueError(f"A run on {owner or 'an unknown machine'} left {folder} locked: {cure}.")
        subprocess.run([*words, "--unlock"], capture_output=True)
        print("The last run was killed; this one goes on from where it was.", file=sys.stderr)
    locks.lock_of(folder).write_text(platform.node() + "\n", encoding="utf-8")
