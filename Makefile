# One command for each thing that one does with a checkout. `make` alone lists them.
#
# The first one sets up .venv (needs the network, once); after that everything works offline.
# Another interpreter:  make test PYTHON=python3.12 VENV=.venv-312

PYTHON ?= python3
VENV   ?= .venv

BIN     := $(VENV)/bin
RUN     := $(VENV)/.installed-to-run
DEVELOP := $(VENV)/.installed-to-develop
EXTRAS  := $(VENV)/.installed-extras
PEERS   := $(VENV)/.installed-peers
# Tests run in two processes.
SIDE_BY_SIDE := --numprocesses 2 --dist worksteal
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

# Another checkout on the path would be tested instead of this one.
unexport PYTHONPATH PYTHONHOME

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUN)  ## set up, then show the whole story: runs, a kill -9, the resume, the proof
	@$(BIN)/dlog demo

.PHONY: test
test: $(DEVELOP)  ## the tests that each change must pass, in minutes
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

.PHONY: test-all
test-all: $(EXTRAS)  ## the rest of them: campaigns, mutations, the real program, networks
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'long and not (soak or fuzz or bench)'

.PHONY: check
check: $(DEVELOP)  ## lint, format, types, layers, golden files, wheels: all, then the verdict
	@$(MAKE) --keep-going lint formatting types layers golden wheels

.PHONY: lint formatting types layers golden wheels
lint: $(DEVELOP)
	@$(BIN)/ruff check --quiet .
formatting: $(DEVELOP)
	@$(BIN)/ruff format --quiet --check .
types: $(DEVELOP)
	@$(BIN)/mypy --strict --no-error-summary
layers: $(DEVELOP)
	@out=$$($(BIN)/lint-imports --no-logo 2>&1) || { printf '%s\n' "$$out"; exit 1; }
golden: $(DEVELOP)
	@$(BIN)/python fixtures/make_golden.py --check
	@$(BIN)/python fixtures/make_damaged.py --check
wheels: $(DEVELOP)
	@$(BIN)/python -m tests.distribution.check

.PHONY: soak
soak: $(DEVELOP)  ## hours of kill, restart and compare
	@$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0 --hypothesis-profile=soak

.PHONY: fuzz
fuzz: $(DEVELOP)  ## long random search for inputs that break a decoder or a table
	@$(BIN)/python -m pytest -m fuzz -o faulthandler_timeout=0 --hypothesis-profile=fuzz

.PHONY: bench
bench: $(PEERS)  ## dlog against the disk, its peers and its targets (minutes; BENCH="--rounds 3")
	@$(BIN)/python -m tests.benchmarks $(BENCH)

.PHONY: guard
guard: $(DEVELOP)  ## seconds: has the hot path become several times as slow? (on a machine at rest)
	@$(BIN)/python -m pytest --quiet -m bench tests/benchmarks/test_guard.py

.PHONY: clean
clean:  ## remove the virtualenv, caches and builds; data stay
	@rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -path './.?*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up. A stamp is touched last, so that a set-up that broke off is done again.

# To Python the folders cli/ and recovery/ are dlog.cli and dlog.recovery. Git keeps the links; an sdist
# has none, and a clone with core.symlinks=false has small files in their places.
.PHONY: links
links:
	@for name in cli recovery; do \
	    if [ ! -d dlog/$$name ]; then \
	        rm -f dlog/$$name; \
	        ln -s ../$$name dlog/$$name || { \
	            echo "A checkout of dlog needs the link dlog/$$name -> ../$$name, and none can be made" >&2; \
	            echo "on this filesystem. Move the checkout, or install dlog instead: pip install ." >&2; \
	            exit 1; }; \
	    fi; \
	done

$(RUN): pyproject.toml | links
	@command -v $(PYTHON) >/dev/null || { \
	    echo "dlog needs Python 3.11 or newer, and there is no $(PYTHON): make PYTHON=/path/to/python3" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "dlog needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "If you have a newer one:  make PYTHON=python3.12" >&2; \
	    exit 1; }
	@echo "setting up $(VENV) (once) ..." >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@# Without isolation a later change of pyproject.toml installs offline too.
	@$(PIP) 'hatchling>=1.27,<2'
	@$(PIP) --no-build-isolation --check-build-dependencies --editable .
	@touch $@

$(DEVELOP): $(RUN)
	@$(PIP) --no-build-isolation --editable '.[test,check]'
	@touch $@

$(EXTRAS): $(DEVELOP)
	@$(PIP) --no-build-isolation --editable '.[plot]'
	@touch $@

$(PEERS): $(DEVELOP) tests/benchmarks/requirements.txt
	@$(PIP) -r tests/benchmarks/requirements.txt
	@touch $@
