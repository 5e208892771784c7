# What a person does with hooklog. Needs Python 3.11 or newer; everything else comes from the registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint bench chaos chaos-mutants dev clean

setup: $(VENV)/ready  ## make .venv with everything in it

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hooklog needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,test]'
	touch $@

demo: setup  ## messages all the way, on the embedded stack, to receivers that check everything
	$(BIN)/hooklog demo

dev: setup  ## the embedded stack, until Ctrl-C
	$(BIN)/hooklog dev

test: setup  ## all tests
	$(BIN)/python -m pytest

lint: setup  ## what .ci/run checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## the figures of bench/README.md
	$(BIN)/hooklog bench

chaos: setup  ## kills, outages, bad receivers on a real stack for some minutes; then all books must agree
	$(BIN)/python -m engine.dev.chaos $(OPTIONS)

chaos-mutants: setup  ## break one rule of crash safety after the other: each must turn it red
	$(BIN)/python -m engine.dev.chaos --mutants $(OPTIONS)

clean:
	rm -rf $(VENV) .hooklog build dist *.egg-info
