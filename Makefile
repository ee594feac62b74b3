# make run    photos and a model in, the comparison report out (settings: config/config.yaml)
# make test   everything that can be checked without a GPU
# make check  format and lint
# make unlock after a run that was killed (kill -9, loss of power); the next run goes on from there
#
# The first call makes .venv and installs the pinned dependencies. On a machine without a GPU, PyTorch's CPU build saves
# a download of several GB: make run PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
# More flags for Snakemake, e.g. make run FLAGS="--config model=facebook/VGGT-1B"
FLAGS ?=
BIN := .venv/bin

.PHONY: run test check unlock clean

run: .venv/installed
	$(BIN)/snakemake -s workflow/Snakefile --cores all $(FLAGS)
	@cat results/comparison_summary.txt

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest

check: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unlock: .venv/installed
	$(BIN)/snakemake -s workflow/Snakefile --cores all --unlock

clean:
	rm -rf .venv results .pytest_cache .ruff_cache

.venv/installed: requirements/lock.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -c "import sys; assert sys.version_info >= (3, 11), 'vggt_quant needs Python 3.11 or newer'"
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
