# Every check has one target; .ci/run calls the same ones.
PYTHON ?= python3
VENV ?= .venv
FLOORS_VENV ?= .venv-floors
BIN := $(VENV)/bin
TESTS ?= tests
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
SHORT := tests/test_api.py tests/test_fold.py tests/test_mask.py tests/cli tests/test_cifar_weights.py tests/checkpoints/test_adapt.py

.DEFAULT_GOAL := help
.PHONY: help install format lint contracts types floors docs test test-fast test-floors test-pythons coverage fuzz audit build check clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "%-13s %s\n", $$1, $$2}'

install:  ## Make .venv with the package (editable) and the developers' tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e ".[dev]"

format:  ## Format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint:  ## Check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

contracts:  ## Check who may import whom
	PYTHONPATH=. $(BIN)/lint-imports

types:  ## Check the package's types
	$(BIN)/python -m mypy

floors:  ## Check that .ci/floors.txt and pyproject.toml agree
	$(BIN)/python .ci/check_floors.py

docs:  ## Build the documentation into docs/_build/html; a warning is an error
	PYTHONPATH=. $(BIN)/python -m sphinx -q -W --keep-going -n docs docs/_build/html

test:  ## Run all tests, on all cores
	$(BIN)/python -m pytest -n auto $(TESTS)

test-fast:  ## Run the tests that are not marked slow
	$(BIN)/python -m pytest -m "not slow" $(TESTS)

test-floors: build  ## Test the built wheel with the oldest supported dependencies (not the slow tests)
	$(PYTHON) -m venv $(FLOORS_VENV)
	$(FLOORS_VENV)/bin/python -m pip install -q --force-reinstall --no-deps dist/*.whl
	$(FLOORS_VENV)/bin/python -m pip install -q -c .ci/floors.txt "$$(ls dist/*.whl)[demo,test]"
	cd / && $(abspath $(FLOORS_VENV))/bin/python -c "import timm, timm_resattn as p; print(p.__file__, timm.create_model('resattn56_cifar', pretrained=True).num_classes)"
	$(FLOORS_VENV)/bin/pytest -m "not slow" $(TESTS)

test-pythons: build  ## Test the built wheel with each of PYTHONS: the quickest files, a few minutes each
	for python in $(PYTHONS); do \
	  venv=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	  $$python -m venv $$venv && $$venv/bin/python -m pip install -q "$$(ls dist/*.whl)[demo,test]" && \
	  $$venv/bin/pytest -q -m "not slow" $(SHORT) || exit 1; \
	done

coverage:  ## Run all tests and list the package's lines that none of them reaches
	$(BIN)/python -m pytest -n auto --cov --cov-report=term-missing:skip-covered $(TESTS)

fuzz:  ## Try 2,000 random networks; benchmarks/reliability has the other parts
	PYTHONPATH=. $(BIN)/python -m benchmarks.reliability --part fuzz

audit:  ## Ask PyPI for known vulnerabilities of the installed versions
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install -q pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/requirements.txt
	.venv-audit/bin/pip-audit --disable-pip --no-deps -r .venv-audit/requirements.txt

build:  ## Build source distribution and wheel into dist/, twice and equal, and check their files
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/python -m build --outdir dist/again . > /dev/null
	for file in dist/*.whl dist/*.tar.gz; do cmp $$file dist/again/$$(basename $$file) || exit 1; done
	rm -rf dist/again
	$(BIN)/python .ci/check_wheel.py dist/*

check: lint contracts types floors docs test  ## All checks but test-floors

clean:  ## Remove what the other targets made, but for the virtual environments
	rm -rf dist docs/_build .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
