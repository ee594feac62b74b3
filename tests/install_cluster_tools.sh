#!/usr/bin/env bash
# Install what the tests of Slurm, S3 and Kubernetes need; without it they are skipped. Needs root and Debian or Ubuntu.
# Usage: tests/install_cluster_tools.sh [ENVIRONMENT]     (default: .venv, which `make test` makes)
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv}

apt-get update
apt-get install -y --no-install-recommends slurm-wlm munge

# An environment on top of the other one: the plugins must not slow down or change what everything else runs in.
"$environment/bin/python" -m venv "$environment/cluster"
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
above=$("$environment/cluster/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$packages')" > "$above/base.pth"
"$environment/cluster/bin/pip" install --quiet --disable-pip-version-check --no-deps -r requirements/cluster.txt
