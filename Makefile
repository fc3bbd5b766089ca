# `make help` lists what there is. `make test` is all that CI runs.

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# The first of these that is 3.11 or newer and can make a virtual environment.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
# What the type checker reads, as far as it exists.
CODE    := $(wildcard src tests bench/*.py scripts/*.py)

BIN      := .venv/bin
PACKAGES := .venv/.packages
VENV     := .venv/.installed
# Tests mostly wait for engines and timeouts, so more files run side by side than there are cores.
WORKERS  ?= 4
# A file is the unit, as its tests share two hosts; in the order of the folders: the lab starts early.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup lint unit lab test bench demo demo-end nemesis replay cold-starts soak fuzz constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(PACKAGES) $(VENV) ## Debian packages (as root) and .venv; instant when nothing has changed
	@:

# A stamp and not a check at each call, so that the second call costs nothing.
$(PACKAGES): $(wildcard scripts/install-packages)
	@$(if $<,bash $<)
	@mkdir -p $(@D)
	@touch $@

# The version of the package is part of what is installed, so __init__.py counts too.
$(VENV): pyproject.toml constraints.txt src/failover_agent/__init__.py
	@python=; \
	for candidate in $(PYTHONS); do \
	    if "$$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'setup: no Python 3.11 or newer that can make a virtual environment: apt-get install python3-venv' >&2; \
	    exit 1; \
	fi; \
	echo 'setup: .venv (half a minute the first time)'; \
	[ -x $(BIN)/pip ] || "$$python" -m venv .venv
	@$(BIN)/pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

lint: $(VENV) ## ruff, mypy, import contracts, the compose file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	@for role in primary backup witness; do \
	    FAILOVER_AGENT_ROLE=$$role $(BIN)/docker-compose --file compose.yaml config --quiet; done

unit: $(VENV) ## the fast tests: no engine, no mutants
	$(BIN)/pytest -m 'not lab and not integration and not mutant'

lab: setup ## two hosts, two real engines, real faults (as root)
	$(BIN)/pytest $(PARALLEL) -m lab

test: setup lint ## everything: lint, every test, every branch of the core
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term-missing

demo: setup ## watch a pair fail over (as root); WITNESS=1 with a witness; KEEP=1 leaves it running
	@KEEP='$(KEEP)' WITNESS='$(WITNESS)' PYTHONPATH=. $(BIN)/python scripts/demo.py

demo-end: ## end a pair that KEEP=1 left running (LAB=FOLDER, as it was printed)
	@PYTHONPATH=. $(BIN)/python -m tests.lab.ground $(if $(LAB),'$(LAB)')

nemesis: setup ## a random walk of faults over a pair with an arbiter (SEED=..., MINUTES=10, ARBITER=witness)
	@PYTHONPATH=. $(BIN)/python -m tests.lab.nemesis $(if $(SEED),--seed $(SEED)) \
	    --minutes $(or $(MINUTES),10) --arbiter '$(or $(ARBITER),witness)'

replay: setup ## fault sequences of the simulator on real engines, compared (SEEDS=1-50, POLICY=both)
	@PYTHONPATH=. $(BIN)/python -m tests.lab.replay --seeds '$(or $(SEEDS),1-50)' \
	    --policy '$(or $(POLICY),in turn)'

cold-starts: setup ## a pair that starts cold, twenty times (STARTS=20, SEED=1)
	@PYTHONPATH=. $(BIN)/python -m tests.lab.cold --starts $(or $(STARTS),20) --seed $(or $(SEED),1)

soak: setup ## the simulations with many more seeds (SEEDS=10000)
	SIMULATION_SEEDS='$(or $(SEEDS),10000)' $(BIN)/pytest -m simulation --timeout=0

fuzz: $(VENV) ## the fuzzing of wire and parsers with many more examples each (EXAMPLES=100000)
	FUZZ_EXAMPLES='$(or $(EXAMPLES),100000)' $(BIN)/pytest tests/unit/test_fuzz_wire.py \
	    tests/unit/test_fuzz_parsers.py --timeout=0 --hypothesis-show-statistics

bench: setup ## how fast, what it costs (as root, ten minutes, on a machine that does nothing else)
	@bash scripts/install-packages keepalived
	@for it in failover peers idle detect; do PYTHONPATH=. $(BIN)/python bench/$$it.py; done

constraints: ## constraints.txt anew: the newest versions that fit, from a fresh environment
	rm -rf .venv
	: >constraints.txt
	$(MAKE) setup
	$(BIN)/pip freeze --exclude-editable >constraints.txt
	@touch $(VENV)

clean: ## away with .venv, caches and build results
	rm -rf .venv build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
	    .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
