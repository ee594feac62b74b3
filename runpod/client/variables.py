"""The variables of a pod that begin with VGGT_: the names and closed words that the start script takes."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).parent.parent / "lib" / "variables.txt"
"""Read by the start script, too."""


def check(env: Mapping[str, str]) -> None:
    """Refuse now what the start script would refuse on a pod that costs money.

    Raises:
        ValueError: a VGGT_ name that nothing reads, or a value that cannot be.
    """
    lines = FILE.read_text(encoding="utf-8").splitlines()
    known = {name: rule for name, *rule in (line.split(" ", 2) for line in lines) if name.startswith("VGGT_")}
    for name, value in env.items():
        if name.startswith("VGGT_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"write {near[0]}, or what else" if near else "correct its name to one that"
            raise ValueError(f"{name} is no setting of a pod; {cure} runpod/README.md lists.")
        pattern, words = known.get(name) or (".*", "anything")
        if value and not re.fullmatch(pattern, value.lower(), re.DOTALL):
            raise ValueError(f"{name} is {value!r}; it takes {words}.")
