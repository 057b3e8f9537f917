# One command builds the book, one passes the tests; both set up .venv first. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
BUILD := $(BIN)/jupyter-book build . --quiet -W -n --keep-going --all
export PYTHONPATH := $(CURDIR)
# Two workers with two threads each on two cores spend their time waiting for each other: one thread per worker.
ALONE := OMP_NUM_THREADS=1

.PHONY: help book test lint types lab notebooks assignments grade bench set-repo clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (once, a few minutes) …"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

book: .venv/installed ## build the book into _build/html
	$(BUILD)
	@echo "The book is ready: file://$(CURDIR)/_build/html/index.html"

lint: .venv/installed ## ruff over the package, tests, tools and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed ## mypy over the package and the tools
	$(BIN)/mypy

test: lint types ## everything: lint, types, strict book, unit tests, links, notebooks executed again
	$(BUILD)
	$(ALONE) $(BIN)/pytest -n 2 --dist loadfile -q --cov --cov-report=term
	$(ALONE) $(BIN)/pytest -q --nbval-lax --nbval-cell-timeout=300 -n 2 --dist loadfile -o filterwarnings=default notebooks

lab: .venv/installed ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: .venv/installed ## execute every notebook and store its outputs and stamp (NAMES="04 05" for some)
	$(BIN)/python tools/notebooks.py execute $(NAMES)

assignments: .venv/installed ## build the student versions of the problem sets
	$(BIN)/python -m tools.classroom build

grade: .venv/installed ## grade a folder of notebooks and zips: make grade SUBMISSIONS=folder [SET=ps1] [OUT=folder]
	@test -n "$(SUBMISSIONS)" || { echo "usage: make grade SUBMISSIONS=folder [SET=ps1] [OUT=folder]"; exit 2; }
	$(ALONE) $(BIN)/python -m tools.classroom grade "$(SUBMISSIONS)" $(if $(SET),--set "$(SET)") $(if $(OUT),--out "$(OUT)") $(GRADE)

bench: .venv/installed ## measure ours against the reference implementations (JSON into benchmarks/results)
	@for script in $(filter-out benchmarks/record.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script $(BENCH) || exit 1; done

set-repo: .venv/installed ## point every badge and link at your fork: make set-repo REPO=owner/name
	@test -n "$(REPO)" || { echo "usage: make set-repo REPO=owner/name"; exit 2; }
	$(BIN)/python tools/notebooks.py set-repo $(REPO)

clean: ## remove what the builds made, keep .venv
	rm -rf _build .mypy_cache .ruff_cache .pytest_cache build dist
