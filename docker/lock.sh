#!/usr/bin/env bash
# Writes the hash locks of the image: requirements/image-cuda.txt (PyTorch's CUDA build, flash-attn-4, what they bring for
# a GPU), image.txt (all else that runs), image-build.txt (what builds our own package). Versions come from
# requirements/lock.txt and pyproject.toml, hashes from the package index. Run it on what the image is made of: Linux
# x86_64, Python 3.11. It installs nothing.
#
#   docker/lock.sh            PYTHON=python3.11 docker/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip)
# No wheels or settings of this machine: the image takes what everybody gets.
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_CONSTRAINT
export PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL=https://pypi.org/simple PIP_DISABLE_PIP_VERSION_CHECK=1

resolve() { # resolve REPORT PIP-ARGUMENTS...: what pip would install, with the hash of each file
    "${pip[@]}" install --quiet --dry-run --ignore-installed --no-cache-dir --report "$@"
}

"$work/venv/bin/python" docker/lock.py requirements >"$work/runtime.in"
resolve "$work/runtime.json" --constraint requirements/lock.txt --requirement "$work/runtime.in"
resolve "$work/build.json" --constraint requirements/lock.txt --requirement <("$work/venv/bin/python" docker/lock.py build)
"$work/venv/bin/python" docker/lock.py write "$work/runtime.json" "$work/build.json"
