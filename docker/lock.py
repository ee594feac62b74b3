"""What `docker/lock.sh` asks pip for, and how it writes down pip's answer. Standard library only.

requirements        print the run-time requirements of pyproject.toml, those of its extra `gpu` included
build               print what builds the wheel that points at the sources
write RUN BUILD     two reports of `pip install --dry-run --report` -> requirements/image*.txt
"""

import json
import os
import platform
import re
import sys
import tomllib
from pathlib import Path

REQUIREMENTS = Path("requirements")
HEADER = "# Made by docker/lock.sh for Linux x86_64, Python 3.11; do not edit.\n"


def main(words: list[str]) -> None:
    """Run one of the commands above, from the project's folder."""
    if (sys.version_info[:2], platform.machine(), sys.platform) != ((3, 11), "x86_64", "linux"):
        raise SystemExit(f"The image has Python 3.11 on Linux x86_64, this is {platform.platform()}: set PYTHON there.")
    project = tomllib.loads(Path("pyproject.toml").read_text())
    if words == ["requirements"]:
        print(*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["gpu"], sep="\n")
    elif words == ["build"]:
        print(*project["build-system"]["requires"], "editables", sep="\n")
    else:
        _write(*[json.loads(Path(path).read_text())["install"] for path in words[1:]])


def _write(runtime: list[dict], build: list[dict]) -> None:
    """Split what runs in two: what only a GPU needs is known by not being in lock.txt, but for PyTorch's own Triton.

    setuptools is not there either (pip brings it along), but PyTorch's CPU build needs it just as much.
    """
    common = _names(REQUIREMENTS / "lock.txt") - {"torch", "triton"} | {"setuptools"}
    _lock("image.txt", [item for item in runtime if _name(item) in common])
    _lock("image-cuda.txt", [item for item in runtime if _name(item) not in common])
    _lock("image-build.txt", build)


def _lock(name: str, items: list[dict]) -> None:
    lines = [f"{_name(item)}=={item['metadata']['version']} --hash=sha256:{_sha256(item)}\n" for item in items]
    temporary = REQUIREMENTS / f".{name}"
    temporary.write_text(HEADER + "".join(sorted(lines)))
    os.replace(temporary, REQUIREMENTS / name)


def _name(item: dict) -> str:
    return _normal(item["metadata"]["name"])


def _sha256(item: dict) -> str:
    return item["download_info"]["archive_info"]["hashes"]["sha256"]


def _names(path: Path) -> set[str]:
    return {_normal(line.partition("==")[0]) for line in path.read_text().split()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1:])
