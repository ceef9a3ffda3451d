# Every target prepares .venv by itself; a fresh clone needs python3 and make, nothing else.
PYTHON ?= python3
RUN    := .venv/bin/python

.PHONY: train test check parity clean

train: .venv/train            ## LeNet-5 on real digits: trains, plots, saves (under a minute)
	$(RUN) -m train lenet5_digits

test: .venv/dev               ## the whole suite, doctests included
	$(RUN) -m pytest --numprocesses auto --dist loadfile

check: .venv/dev              ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

parity: .venv/parity          ## every variant against torchvision and timm, live; the table into README.md
	folder=$$(mktemp -d) && trap 'rm -r $$folder' EXIT && \
	$(RUN) -m tests.golden.make --live --folder $$folder && \
	$(RUN) -m tests.golden.parity $$folder README.md

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --upgrade pip

.venv/train: pyproject.toml | .venv/bin/python
	$(RUN) -m pip install --quiet --editable ".[train]"
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/train

.venv/parity: pyproject.toml | .venv/bin/python
	$(RUN) -m pip install --quiet --editable ".[dev,parity]"
	touch $@ .venv/dev .venv/train

clean:
	rm -rf .venv
