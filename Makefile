# make demo: the main job on embedded data.  make test: all checks.  Both make their own environment.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test docs reliability check install browser clean
.DELETE_ON_ERROR:

demo: install
	$(BIN)/boundnas run configs/digits.yaml

test: check browser
	$(BIN)/pytest -n 2 --dist worksteal

check: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

# constraints.txt holds PyTorch at the release whose plain wheel is the small CPU build.
.venv/installed: pyproject.toml setup.py constraints.txt $(wildcard src/boundnas/elastic/*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

.venv/developed: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The guarantees at the size that is promised (docs/reliability.md); takes 35 minutes on two cores.
reliability: check browser
	$(BIN)/pytest -n 2 --dist worksteal --full

# The site of the docs, in site/: pages without a server.
docs: .venv/developed
	$(BIN)/zensical build --clean --strict

# The report is tested in a real browser.
browser:
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }

clean:
	rm -rf .venv
