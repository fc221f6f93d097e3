# Everything a person or CI does with this tree. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
PY := $(VENV)/bin/python

.PHONY: build
build: ## Compile the native extensions in place (WARP_DEBUG_BUILD=1: with checks)
	@mkdir -p build && flock build/lock $(PY) setup.py -q build_ext --inplace
