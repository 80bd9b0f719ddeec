# make demo: the benchmark on the embedded default.  make test: proves the installation.  make help: the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
CONFIG ?= workflow/config/demo.yaml
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install demo test slurm-test lint format ui constraints clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/.installed ## make .venv with the pinned dependencies

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; name another by make PYTHON=...") if not (3, 11) <= sys.version_info < (3, 14) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install ## run the embedded default: results/demo and reports/generated/demo/index.md
	snakemake --configfile workflow/config/demo.yaml --cores $(JOBS) --quiet host reason --rerun-incomplete --keep-going --show-failed-logs
	@echo "report: reports/generated/demo/index.md    runs: make ui"

test: install ## all tests
	pytest

slurm-test: install ## a real Slurm with two fake GPUs (as root, on Debian), and the tests that need it
	tests/workflow/slurm/cluster.sh install
	pytest tests/workflow/test_slurm.py tests/rmt/test_postgresql.py

lint: install ## ruff, snakefmt, snakemake --lint, mypy
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

format: install ## let ruff and snakefmt rewrite
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

ui: install ## open MLflow on the store of the finished runs
	@test -f results/mlflow.db || { echo "error: no runs yet in results/mlflow.db; make demo first" >&2; exit 2; }
	@python -c 'import glob, json; [print(name, page, sep=": ") for path in glob.glob("results/*/tracked.json") for name, page in json.load(open(path))["pages"].items()]'
	mlflow ui --backend-store-uri sqlite:///results/mlflow.db --host 127.0.0.1 --port 5000

constraints: install ## write the versions of .venv into constraints.txt
	(sed -n 1p constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt

clean: ## delete results and generated data, keep .venv
	rm -rf results data .snakemake
