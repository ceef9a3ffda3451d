# Every target prepares .venv by itself; a fresh clone needs python3 and make, nothing else.
PYTHON ?= python3
RUN    := .venv/bin/python

.PHONY: train test check clean

train: .venv/train            ## LeNet-5 on real digits: trains, plots, saves (under a minute)
	$(RUN) -m train lenet5_digits

test: .venv/dev               ## the whole suite, doctests included
	$(RUN) -m pytest --numprocesses auto --dist loadfile

check: .venv/dev              ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --upgrade pip

.venv/train: pyproject.toml | .venv/bin/python
	$(RUN) -m pip install --quiet --editable ".[train]"
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/train

clean:
	rm -rf .venv
