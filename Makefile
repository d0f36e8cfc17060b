# `make demo` and `make test` need Python 3.11 and nothing else; all of them build .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_PORT ?= 8080
# Two test processes, each file in one of them, heavy files first (tests/conftest.py); one thread each, or they would
# wait for one another.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest -q $(PARALLEL)
fast test slow soak coverage: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help env demo check lint docs fast test slow soak wheel-test coverage format hooks clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-11s %s\n", $$1, $$2 }'

env: .venv/installed ## build .venv with everything that development needs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	test -x $@ || $(PYTHON) -m venv .venv

# What serving needs, and nothing that trains.
.venv/serving: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable .
	touch $@

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	touch .venv/serving $@

demo: .venv/serving demo/shop/catalogue.csv ## index a drawn catalogue and serve the page on port 8080
	$(BIN)/nitamono index demo/shop/catalogue.csv --home demo/home
	$(BIN)/nitamono serve --home demo/home --port $(DEMO_PORT)

demo/shop/catalogue.csv: | .venv/serving
	rm -rf demo/shop
	$(BIN)/nitamono sample-catalogue --out demo/shop --items 240 --photos-per-item 3

check: lint docs fast ## lint, docs and the fast tests: run it before every commit

lint: env ## formatting, lint, types (tests too) and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: env ## the fast tests, about five minutes on 2 cores
	$(PYTEST) -m 'not slow and not soak and not heavy'

test: env ## the default tests, fast ones included: about ten minutes on 2 cores
	$(PYTEST)

slow: env ## the tests that take long: about half an hour on 2 cores
	$(PYTEST) -m 'slow and not soak and not wheel'

soak: env ## slow tests at more moments and for longer; run it before a release
	$(PYTEST) -m soak

wheel-test: env ## install into an empty environment as the Dockerfile does, index and search
	$(BIN)/python -m pytest -q -m wheel

coverage: env ## line and branch coverage of the default tests
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

docs: env ## build the site into site/; broken links and pages without navigation are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: env ## rewrite formatting and what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: env ## run ruff and mypy before each git commit
	$(BIN)/pre-commit install

clean: ## remove .venv and everything built
	rm -rf .venv demo build site *.egg-info .coverage*
