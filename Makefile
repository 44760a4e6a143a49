# `make fit` and `make test` do all the set-up on a fresh machine that has Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/ccd.yaml

.PHONY: setup fit test lint types format bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

fit: setup
	$(BIN)/python train.py fit --config $(CONFIG)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

# mypy knows nothing of the mapping in pyproject.toml by which callbacks/ is ccd_lightning.callbacks.
types: setup
	rm -rf build/types && mkdir -p build/types && cp -r ccd_lightning train.py pyproject.toml build/types
	cp -r callbacks build/types/ccd_lightning/callbacks
	cd build/types && ../../$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
