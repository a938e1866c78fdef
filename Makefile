# One command does everything, set-up included: `make demo`, `make test`.
# Each target works from a fresh clone; the environment is .venv, made anew when it is stale.

PYTHON ?= python3
PYTEST_FLAGS ?= -n 2 --dist loadfile

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

RUN := .venv/bin/python
READY := .venv/ready
FOLDERS := spec numpy_impl torch_impl tf_impl tasks benchmarks conformance

# One thread a process: the matrices are small, and two processes whose threads wait for each other by spinning
# cost an update of the demonstration 340 ms instead of 19 (torch, 2 cores, measured).
export OMP_NUM_THREADS ?= 1
# Another Keras would change what is tested.
unexport KERAS_BACKEND
unexport TF_USE_LEGACY_KERAS

# Budgets on 2 cores. All of `make test` has 18 minutes, for everything that will ever be in it (measured: 13:42 with
# the set-up, before some 300 of its cases; 24:12 while the machine ran at half that speed): set-up 3:00, lint 0:15,
# types 1:00, and of the tests, two files at a time, spec and numpy 1:30, torch 2:00, tf 3:00, conformance suite 4:00,
# tasks and command line 3:00, README and wheel 2:30.
# `make demo` has 2:00 after the set-up (0:32), `make test-long` takes hours (never timed whole).

.PHONY: help demo test test-long lint types check teeth vectors implementations results wheel-test format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## train in PyTorch on real data, run it in all three frameworks, prove it equal
	@$(RUN) -P -m rnnzoo.conformance.demo

test: lint types ## everything that must pass: lint, types, tests, conformance suite, wheel test
	@$(RUN) -P -m pytest $(PYTEST_FLAGS)

test-long: $(READY) ## the tests that take minutes
	@$(RUN) -P -m pytest -m long

lint: $(READY) ## ruff, rules and format
	@$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(READY) ## mypy over the folders
	@mkdir -p .build/rnnzoo
	# They lie at the top level and are installed below `rnnzoo`, so the type checker gets that view of them.
	for folder in $(FOLDERS); do ln -sfn "../../$$folder" ".build/rnnzoo/$$folder"; done
	cd .build
	../$(RUN) -m mypy --config-file ../pyproject.toml

check: $(READY) ## the conformance suite over every backend, as a report
	@.venv/bin/rnnzoo check

teeth: $(READY) ## known mistakes, seeded into every backend: each must be caught
	@.venv/bin/rnnzoo check --teeth

vectors: $(READY) ## write the vectors for other languages again, and check them
	@$(RUN) -P -m rnnzoo.conformance.vector_set conformance/vectors

results: $(READY) ## train every experiment in every backend, and write the table of results (RESULTS=FOLDER)
	@nice $(RUN) -P -m rnnzoo.tasks.results $(or $(RESULTS),runs/results-$(shell date +%Y%m%d-%H%M%S)) --readme README.md

implementations: $(READY) ## run the suite on everything that is installed, and write the table of implementations
	@.venv/bin/rnnzoo check --everything --table conformance/IMPLEMENTATIONS.md

wheel-test: $(READY) ## build the wheel, install it elsewhere, look inside
	@$(RUN) -P -m pytest tests/test_packaging.py

format: $(READY) ## rewrite the code as ruff would
	@$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean: ## remove .venv and everything that was made
	@rm -rf .venv .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp holds the folder it was made in: the installation points into it, so a renamed clone installs again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
# A Python that was asked for by name and is not the one in .venv.
ifneq ($(origin PYTHON),file)
ifneq ($(shell { "$(PYTHON)" -V; } 2>/dev/null),$(shell { $(RUN) -V; } 2>/dev/null))
.PHONY: $(READY)
endif
endif

VERSION_CHECK = import sys; v = sys.version_info; (3, 11) <= v[:2] <= (3, 13) or sys.exit( \
	"rnnzoo needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d.%d: name another, make PYTHON=python3.12" % v[:3])

$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "no program $(PYTHON): name one, make PYTHON=python3.12" >&2; exit 2; }
	"$(PYTHON)" -c '$(VERSION_CHECK)'
	rm -f $(READY)
	if [ "$$($(RUN) -V 2>&1)" != "$$("$(PYTHON)" -V 2>&1)" ] || ! $(RUN) -m pip -V >/dev/null 2>&1; then
	  rm -rf .venv
	  "$(PYTHON)" -m venv .venv
	fi
	echo "setting up .venv: PyTorch, TensorFlow and the rest; minutes the first time"
	$(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	echo "$(CURDIR)" > $(READY)
