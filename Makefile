# Two commands matter: `make demo` and `make test`. Each sets up all it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A Python that runs and has pip: neither is so where Python was upgraded away, or setting up was cut off.
RUNS := $(BIN)/python -c 'import pip' 2>/dev/null
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Handed on in the environment, as it was written: neither make nor the shell reads quotes and dollars in it.
override PROMPT := $(value PROMPT)
export PROMPT

.PHONY: help setup venv demo serve test check format browser database proxy tools clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## the virtual environment with pinned dependencies (second runs reuse it)
	@$(RUNS) || rm -f $(VENV)/.ready
	@$(MAKE) --silent $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Calotype needs Python 3.11 or newer: set PYTHON=..."; exit 2; }
	@$(RUNS) || $(MAKE) --silent venv
	@echo "Installing dependencies (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

venv:  # anew, in place of one that doesn't run; Debian has a part of what it takes in a package of its own
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "This Python can't make virtual environments: install $$package (sudo apt-get install $$package)"; \
	    exit 2; \
	  fi; \
	  echo "Installing Debian's $$package (once) ..."; \
	  apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $$package >/dev/null; }
	@$(PYTHON) -m venv --clear $(VENV)

demo: setup  ## a server and a first picture: make demo PROMPT="a red tent by the sea at night"
	@exec $(BIN)/calotype demo $(if $(PROMPT),--prompt "$$PROMPT")

serve: setup  ## the platform: page, API, engine
	@exec $(BIN)/calotype serve

# A process each core, since most tests wait for servers; a file is one process's, the longest first.
test: setup browser database proxy tools  ## the whole suite, or with ARGS="-x -k mask" a part of it
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 $(ARGS)

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
	@$(BIN)/python -m tests.web.install_browser

database: setup  # PostgreSQL for the tests of the job store
	@$(BIN)/python -m tests.postgres

proxy: setup  # nginx for the tests of delivery; without it they are skipped, and say so
	@$(BIN)/python -m tests.nginx || true

tools: setup  # what tests hold pictures and signatures against; without them a few are skipped, and say so
	@$(BIN)/python -m tests.exiftool || true
	@$(BIN)/python -m tests.tokens || true

clean:  ## removes the environment and caches (never your pictures)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
