# make demo    set up, then the whole way on the samples in data/: text to a model that answers
# make test    set up, then all tests
# make check   what CI runs: lint, types, import layers, tests
# make help    the other targets

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# DeepSpeed compiles a small C++ module at its first run; keep it with the project.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.cache/torch_extensions

.PHONY: help setup demo test test-fast test-faults bench check lint types format eos-experiment clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## make .venv and install everything, once

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) tools/check_machine.py
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	# torch first and pinned: a plain "torch" can bring gigabytes of CUDA packages.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $(STAMP)

demo: $(STAMP) ## the whole way on data/, about four minutes on two cores
	@$(BIN)/python tools/demo.py

test: $(STAMP) ## all tests
	@$(BIN)/python -m pytest

test-fast: $(STAMP) ## all tests but those that start whole programs
	@$(BIN)/python -m pytest -m "not e2e and not faults"

test-faults: $(STAMP) ## kill, fill and corrupt at every point, and print the figures (minutes)
	@$(BIN)/python -m pytest -m faults tests/faults

lint: $(STAMP) ## style
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## types
	@$(BIN)/mypy

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speed beside others; TEXT=FILE.jsonl for text of your own (minutes, on an idle machine)
	@$(BIN)/python tests/benchmarks/bench_prepare.py $(TEXT)
	$(BIN)/python tests/benchmarks/bench_pack.py
	$(BIN)/python tests/benchmarks/bench_loader.py
	[ -z "$(TEXT)" ] || $(BIN)/python tests/benchmarks/bench_tokenizer_train.py $(TEXT)

check: lint types test ## what CI runs

eos-experiment: $(STAMP) ## train with and without [EOS] in the loss; print both stop rates
	@$(BIN)/python tools/eos_experiment.py

clean: ## remove what the targets made, but .venv
	@rm -rf demo runs hf build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
