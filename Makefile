# make run    photos and a model in, the comparison report out (settings: config/config.yaml)
# make test   everything that can be checked without a GPU
# make check  format, lint, types
# make docs   writes the tables of settings in config/README.md and the schemas from the code
# make unlock after a run that was killed (kill -9, loss of power); the next run goes on from there
#
# make test-cluster   Slurm, S3, Kubernetes, several GPUs   \ as root on Debian or Ubuntu: these install system packages,
# make test-image     the container image, without Docker   / and a test that skips fails
# make image          build the image with Docker and run a tiny comparison in it
# make lock           the image's packages and their hashes anew, from requirements/lock.txt (Linux x86_64, Python 3.11)
#
# The first call makes .venv and installs the pinned dependencies. On a machine without a GPU, PyTorch's CPU build saves
# a download of several GB: make run PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
# More flags for Snakemake, e.g. make run FLAGS="--config model=facebook/VGGT-1B"
FLAGS ?=
DOCKER ?= docker
# More flags for `docker build`, e.g. make image IMAGE_FLAGS='--build-arg REVISION=...'
IMAGE_FLAGS ?=
BIN := .venv/bin

.PHONY: run test test-cluster test-image check docs unlock image lock clean

run: .venv/installed
	$(BIN)/snakemake -s workflow/Snakefile --cores all $(FLAGS)
	@cat results/comparison_summary.txt

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

test-cluster: .venv/cluster/installed
	$(BIN)/pytest --no-skips tests/test_slurm.py tests/test_s3_storage.py tests/test_kubernetes.py \
		tests/test_workflow_gpus.py

test-image: .venv/image-tools
	$(BIN)/pytest --no-skips tests/test_image.py

check: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python tools/docs.py

unlock: .venv/installed
	$(BIN)/snakemake -s workflow/Snakefile --cores all --unlock

image:
	for target in runtime runpod; do \
		$(DOCKER) build --file docker/Dockerfile --target $$target --tag vggt_quant:$$target $(IMAGE_FLAGS) . || exit; \
	done
	$(DOCKER) run --rm vggt_quant:runtime
	$(DOCKER) run --rm vggt_quant:runtime compare --model nano-random --images drawn --max-scenes 1 \
		--variants fp32,int8_symmetric --calibration-folder none --device cpu --output out

lock:
	docker/lock.sh

clean:
	rm -rf .venv results .pytest_cache .ruff_cache

.venv/installed: requirements/lock.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -c "import sys; assert sys.version_info >= (3, 11), 'vggt_quant needs Python 3.11 or newer'"
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/cluster/installed: tests/install_cluster_tools.sh requirements/cluster.txt | .venv/installed
	tests/install_cluster_tools.sh
	@touch $@

.venv/image-tools: tests/install_image_tools.sh | .venv/installed
	tests/install_image_tools.sh
	@touch $@
