# `make fit` and `make test` do all the set-up on a fresh machine that has Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/ccd.yaml

.PHONY: setup fit test lint package types docs format bench clean

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

# Tools that read the sources know nothing of the mapping by which callbacks/ is ccd_lightning.callbacks.
package:
	rm -rf build/package && mkdir -p build/package && cp -r ccd_lightning train.py pyproject.toml build/package
	cp -r callbacks build/package/ccd_lightning/callbacks

types: setup package
	cd build/package && ../../$(BIN)/mypy

# The documentation as a site in build/site; it loads nothing from elsewhere.
docs: setup package
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks $(if $(RUN),--run $(RUN))

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
