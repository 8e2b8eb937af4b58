# `make demo` and `make test` need Python >= 3.11 and make, nothing else: each sets up what it runs.
# The set-up is a virtual environment in .venv, made again when pyproject.toml changes.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
DEMO_ARGS ?=

.PHONY: demo test check docs bench other-pythons clean
demo: .venv/ready
	$(BIN)/python docs/examples/hrf_by_region.py --output demo-output $(DEMO_ARGS)

test: check docs other-pythons
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: .venv/ready
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: .venv/ready
	$(BIN)/python benchmarks/run.py

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group lint --group docs
	touch $@

clean:
	rm -rf .venv .venv-* build dist demo-output docs/_build
