# Two commands do all the set-up themselves: "make demo" and "make test".
# Choices: make demo STACK=wheels, TORCH='torch==2.9.1', MMCV_OPS=cpu, PYTHON=python3.12; see setup/bootstrap/__main__.py.

PYTHON ?= python3
STACKS ?= .stacks
# The environment of a stack, that of the default one where none is named.
RUN := $(if $(filter-out default,$(STACK)),$(STACKS)/$(STACK),.venv)/bin/python
# The references were made on the default stack; elsewhere the first step is the same, and later ones drift apart.
NUMBERS := $(if $(filter-out default,$(STACK)),--first-step)
# What the files of a stack are told apart by.
OF_STACK := $(if $(filter-out default,$(STACK)),_$(STACK))
# Test processes; more threads in each would only wait for one another.
JOBS ?= 2
# Of "make benchmark": the name of the results' file, a few words about the machine, threads, timed steps, other options.
NAME ?= here
MACHINE ?=
THREADS ?= 2
ROUNDS ?= 15
OPTIONS ?=
# What mypy looks at, of what there is; ruff looks at everything.
TYPED := $(wildcard mmkd_plugin tools tests benchmarks setup examples)

.DEFAULT_GOAL := help
.PHONY: help setup demo seeds methods test test-all check-numbers mutation fuzz benchmark pages recipes stacks zoo lint doctor

help:
	@echo "make demo           distil a small detector and compare it with its teacher and the student alone"
	@echo "make seeds          the same with three seeds"
	@echo "make methods        every method on two detectors and a segmentor with three seeds; takes long"
	@echo "make test           run the tests but for the slow ones, and the check of the numbers"
	@echo "make test-all       run all tests and the check of the numbers"
	@echo "make check-numbers  train the small pairs and compare every term with the committed references"
	@echo "make mutation       break the formulas in small ways and see whether their tests notice; takes long"
	@echo "make fuzz           draw 500 mistakes that a user may make and count what becomes of them; takes long"
	@echo "make stacks         run the core check on every stack of versions, ONLY=name on one; takes long"
	@echo "make zoo            distil every family of both zoos for one step, STACK=forks those of the forks; takes long"
	@echo "make recipes        train every full recipe for one step and write docs/recipes.md; takes minutes"
	@echo "make benchmark      measure what distillation costs on this machine, NAME=cpu_2_cores MACHINE='two cores, idle'; takes long, goes on"
	@echo "make pages          write the tables of README.md and docs/ from the code and the results, and draw their spread"
	@echo "make lint           check style and types"
	@echo "make doctor         print what is installed and what will not work"
	@echo "make setup          make .venv, as the others do by themselves"

setup:
	@$(PYTHON) setup/bootstrap

demo: setup
	@$(RUN) tools/demo.py

seeds: setup
	@$(RUN) tools/demo.py --seeds 0 1 2

methods: setup
	@$(RUN) -m benchmarks.compare_methods $(OPTIONS)

test: setup
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -m 'not slow' -n $(JOBS) --dist loadfile
	@$(RUN) -m benchmarks.check_numbers $(NUMBERS)

test-all: setup
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile
	@$(RUN) -m benchmarks.check_numbers $(NUMBERS)

check-numbers: setup
	@$(RUN) -m benchmarks.check_numbers

benchmark: setup
	@OMP_NUM_THREADS=$(THREADS) $(RUN) -m benchmarks.cost --name $(NAME) --machine '$(MACHINE)' --rounds $(ROUNDS) $(OPTIONS)
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.growth --name $(NAME)

pages: setup
	@$(RUN) -m benchmarks.pages

recipes: setup
	@$(RUN) -m mmkd_plugin check-recipes --page docs/recipes.md

stacks:
	@$(PYTHON) -m benchmarks.stacks $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep)

zoo:
	@$(PYTHON) setup/bootstrap --optional
	@$(RUN) -m benchmarks.zoo_sweep mmdet --work-dir work_dirs/zoo$(OF_STACK) --out docs/zoo_mmdet$(OF_STACK).md
	@$(RUN) -m benchmarks.zoo_sweep mmseg --work-dir work_dirs/zoo$(OF_STACK) --out docs/zoo_mmseg$(OF_STACK).md

mutation: setup
	@$(RUN) -m pip install -q mutmut==2.5.1
	@$(RUN) -m benchmarks.mutation --page docs/mutation.md

fuzz: setup
	@$(RUN) -m benchmarks.fuzz --draws 500 --page docs/fuzz.md

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy $(TYPED)

doctor: setup
	@$(RUN) tools/doctor.py
