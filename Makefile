# Every check has one target; .ci/run calls the same ones.
PYTHON ?= python3
VENV ?= .venv
FLOORS_VENV ?= .venv-floors
BIN := $(VENV)/bin
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help install format lint contracts types floors docs test test-fast test-floors build check clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

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
	$(FLOORS_VENV)/bin/pytest -m "not slow" $(TESTS)

build:  ## Build source distribution and wheel into dist/ and check the wheel's files
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/python .ci/check_wheel.py dist/*.whl

check: lint contracts types floors docs test  ## All checks but test-floors

clean:  ## Remove what the other targets made, but for the virtual environments
	rm -rf dist docs/_build .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
