# `make demo` and `make test` need Python 3.11 and nothing else; all of them build .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_PORT ?= 8080
# Two test processes, each file in one of them; one thread each, or they would wait for one another.
PARALLEL := --numprocesses 2 --dist loadfile
test slow: export OMP_NUM_THREADS := 1

.PHONY: env demo test slow check format clean

env: .venv/installed

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

demo: .venv/serving demo/shop/catalogue.csv
	$(BIN)/nitamono index demo/shop/catalogue.csv --home demo/home
	$(BIN)/nitamono serve --home demo/home --port $(DEMO_PORT)

demo/shop/catalogue.csv: | .venv/serving
	rm -rf demo/shop
	$(BIN)/nitamono sample-catalogue --out demo/shop --items 240 --photos-per-item 3

test: env
	$(BIN)/python -m pytest -q $(PARALLEL)

slow: env
	$(BIN)/python -m pytest -q -m slow $(PARALLEL)

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build *.egg-info
