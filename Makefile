# Two commands do all the set-up themselves: "make demo" and "make test".
# Choices: make demo TORCH='torch==2.9.1', MMCV_OPS=cpu, PYTHON=python3.12; see tools/bootstrap/__main__.py.

PYTHON ?= python3
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo seeds test lint doctor

help:
	@echo "make demo    distil a small detector and compare it with its teacher and the student alone"
	@echo "make seeds   the same with three seeds"
	@echo "make test    run the tests and the regression check"
	@echo "make lint    check style and types"
	@echo "make doctor  print what is installed and what will not work"
	@echo "make setup   make .venv, as the others do by themselves"

setup:
	@$(PYTHON) tools/bootstrap

demo: setup
	@$(RUN) tools/demo.py

seeds: setup
	@$(RUN) tools/demo.py --seeds 0 1 2

test: setup
	@$(RUN) -m pytest -q
	@$(RUN) tools/regression.py

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy mmkd_plugin tools tests

doctor: setup
	@$(RUN) tools/doctor.py
