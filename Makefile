# Two commands matter: `make demo` shows the lab at work, `make test` checks everything that CI checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The engine compiled once, and again when its sources change: half a minute, which three workers of the tests would each spend.
WARM := $(VENV)/.warm
ENGINE := $(wildcard quantbot_pipeline/replay/*.py quantbot_pipeline/search/*.py quantbot_pipeline/evidence/*.py) quantbot_pipeline/vocabulary.py

# Some hundred processes of the tests would each compile the package's sources anew, half a second each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test suite torture ui bench examples lint hooks docs docs-tables clean

demo: $(WARM)
	$(BIN)/quantbot demo --home .

ui: $(WARM)
	$(BIN)/quantbot ui --home .

# The checks of `lint` take one core and run beside the tests.
test: $(STAMP)
	$(MAKE) --jobs 2 lint suite

suite: $(WARM)
	$(BIN)/python -W error -c 'import dagster as dg; from quantbot_pipeline.definitions import defs; dg.Definitions.validate_loadable(defs)'
	$(BIN)/python -m pytest -n auto --dist worksteal

# The whole fault campaign of docs/reliability.md, which says how long it takes; the counts go to torture-report.txt.
torture: $(WARM)
	$(BIN)/python -m pytest -m torture -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, from the pages of docs/ and the docstrings; a warning is an error.
docs: $(STAMP)
	$(BIN)/python -m tools.docs_site site

# Write the tables of docs/ anew: columns, settings, commands, options.
docs-tables: $(STAMP)
	$(BIN)/python -m tools.docs_tables

# Before every commit: the checks of `lint`, as .pre-commit-config.yaml lists them.
hooks: $(STAMP)
	$(BIN)/pre-commit install

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(SECTIONS)

# Write the outputs of docs/analysis.md anew.
examples: $(STAMP)
	$(BIN)/python -m examples.render

# vectorbt, which the engine is compared with, is installed for the benchmarks only.
$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs,bench]'
	touch $@

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "quantbot needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $(STAMP)

$(WARM): $(STAMP) $(ENGINE)
	$(BIN)/quantbot warm-up
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
