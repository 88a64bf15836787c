# Every target sets up what it needs: a fresh machine with Python 3.11 and make is enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo check format test docs bench notebook clean
.DEFAULT_GOAL := demo

# pip, not a faster installer: where a CPU build of torch lies on disk for pip, only pip sees it.
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "textlora needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

setup: .venv/installed-dev          ## everything for work on the project

demo: .venv/installed               ## train, evaluate and predict on the embedded sample
	$(BIN)/textlora demo

check: .venv/installed-dev          ## lint, format, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/installed-dev         ## rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: .venv/installed-dev           ## all tests, with coverage
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadscope
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

docs: .venv/installed-dev          ## the site, in site/; every block of the guides is run first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope tests/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: .venv/installed              ## training speed beside the Trainer's, short form: four minutes
	$(BIN)/python benchmarks/train_vs_peers.py --out runs/bench.json --rounds 1 \
		--case "minilm, query and value of all layers"

notebook: .venv/installed-dev       ## rebuild the notebook from its paired script
	$(BIN)/jupytext --to ipynb notebooks/model_training.py

clean:                              ## what a run of the targets above leaves behind
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.* runs/demo runs/notebook runs/bench.json
