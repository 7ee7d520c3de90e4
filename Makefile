# Two commands do all the set-up themselves: "make demo" and "make test".
# Choices: make demo TORCH='torch==2.9.1', MMCV_OPS=cpu, PYTHON=python3.12; see setup/bootstrap/__main__.py.

PYTHON ?= python3
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo seeds methods test mutation lint doctor

help:
	@echo "make demo    distil a small detector and compare it with its teacher and the student alone"
	@echo "make seeds   the same with three seeds"
	@echo "make methods every method on two detectors and a segmentor with three seeds; takes long"
	@echo "make test    run the tests and the regression check"
	@echo "make mutation  break the formulas in small ways and see whether the tests notice; takes long"
	@echo "make lint    check style and types"
	@echo "make doctor  print what is installed and what will not work"
	@echo "make setup   make .venv, as the others do by themselves"

setup:
	@$(PYTHON) setup/bootstrap

demo: setup
	@$(RUN) tools/demo.py

seeds: setup
	@$(RUN) tools/demo.py --seeds 0 1 2

METHODS = Chen=chen FGI=fgi FGD=fgd CWD=cwd PKD=pkd 'FGD + Chen=fgd_chen'
SEGMENTATION = pixel=pixel 'pixel + pair=pixel_pair' 'pixel + pair + holistic=pixel_pair_holistic' \
	'logits + aux=pspnet_kd' CWD=cwd

methods: setup
	@$(RUN) tools/make_coco_mini.py
	@for detector in retina faster-rcnn; do \
		set --; for method in $(METHODS); do set -- "$$@" "$${method%%=*}=configs/coco_mini/$${method##*=}_$${detector}_r34_to_r18.py"; done; \
		$(RUN) tools/compare.py configs/coco_mini/$${detector}_r18.py "$$@" --work-dir work_dirs/methods/$$detector || exit; \
	done
	@set --; for method in $(SEGMENTATION); do set -- "$$@" "$${method%%=*}=configs/coco_mini/$${method##*=}_pspnet_r34_to_r18.py"; done; \
	$(RUN) tools/compare.py configs/coco_mini/pspnet_r18.py "$$@" --work-dir work_dirs/methods/pspnet

test: setup
	@$(RUN) -m pytest -q
	@$(RUN) -m benchmarks.check_numbers

mutation: setup
	@$(RUN) -m pip install -q mutmut==2.5.1
	@$(RUN) -m benchmarks.mutation --page docs/mutation.md

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy mmkd_plugin tools tests benchmarks

doctor: setup
	@$(RUN) tools/doctor.py
