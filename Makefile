# Two commands matter: `make demo` and `make test`. Each sets up all it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo serve test check format browser clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## the virtual environment with pinned dependencies (second runs reuse it)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "Calotype needs Python 3.11 or newer: set PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing dependencies (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## a server and a first picture: make demo PROMPT="a red tent by the sea at night"
	@exec $(BIN)/calotype demo $(if $(PROMPT),--prompt "$(PROMPT)")

serve: setup  ## the platform: page, API, engine
	@exec $(BIN)/calotype serve

test: setup browser  ## the whole suite
	@$(BIN)/python -m pytest

check: setup  ## lint, format, types, import direction, tidiness
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/tidy

format: setup  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

browser: setup  # Chromium for the tests of the page
	@$(BIN)/python tests/web/install_browser.py

clean:  ## removes the environment and caches (never your pictures)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
