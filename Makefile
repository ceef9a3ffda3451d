# Every target prepares .venv by itself; a fresh clone needs python3 and make, nothing else.
PYTHON ?= python3
RUN    := .venv/bin/python

.PHONY: train test check parity bench clean

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

MODELS ?= mobilenet_v2 mobilenet_v1 resnet50 resnet18 vgg16 densenet121 resnext50_32x4d vit_b_16
bench: .venv/parity           ## speed beside torch, forward and training step; MODELS="..." for others
	$(RUN) -m train.bench $(MODELS) --against torch

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
