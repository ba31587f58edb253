# make help lists the targets. Other photos: AGE_DATA=<folder or CSV> make run. Another Python: make PYTHON=python3.12 run
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.installed
SEEDS ?= 1 2
# The better network of notebook 06: the face ResNet, or ResNet-18 where its package could not be had.
BETTER = $$(ls runs/*/face_resnet/best.pt >/dev/null 2>&1 && echo face_resnet || echo resnet18)
# glibc gives freed tensors back to the system, which must fill every page of the next step's with zeros: a third of a
# step and more (tests/bench/README.md). So it keeps them. Children inherit this: kernels, tests, trainings.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 2147483647

.DEFAULT_GOAL := help
.PHONY: help run ages test lab phone refresh seeds bench faces lint clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 15

$(READY): requirements.txt requirements-optional.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, e.g. make PYTHON=python3.11 run" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into .venv (torch is large: some minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-optional.txt || echo "Without the face ResNet and the face detector: notebooks 06 and 09 will say so."
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: $(READY)  ## execute the notebooks in order on the photos of AGE_DATA (the shipped faces if unset), print the results; SEED=1 trains with another seed
	@$(PY) run.py $(if $(SEED),--seed $(SEED))

ages: $(READY)  ## the ages in your photos: make ages PHOTOS="photo.jpg holidays/"; writes annotated/, replaces nothing
	@$(PY) -m commands.ages $(PHOTOS)

test: $(READY)  ## the unit tests, then every notebook with its output compared
	@env -u AGE_DATA $(PY) -m pytest

lab: $(READY)  ## open JupyterLab on the first notebook
	@$(PY) -m jupyter lab notebooks/01_eda.ipynb

phone: $(READY)  ## write the page for a phone, runs/<name>/phone.html, without a training; MODEL=<an ONNX file> takes another model
	@$(PY) -m commands.phone $(if $(MODEL),--model $(MODEL))

refresh: $(READY)  ## re-execute the committed notebooks in place and rewrite figs/ and pics/
	@$(PY) run.py --refresh

seeds: $(READY)  ## after make run: train its networks again with two other seeds, for notebook 08
	@[ -n "$(AGE_DATA)" ] || (echo "$(BETTER), no augmentation" && \
	  $(PY) -m commands.train --model $(BETTER) --seed 6 --augmentation none)
	@for seed in $(SEEDS); do for model in simple_cnn $(BETTER); do \
	  echo "$$model, seed $$seed" && $(PY) -m commands.train --model $$model --seed $$seed || exit 1; done; done

bench: $(READY)  ## measure what the series costs on this machine; writes runs/bench.csv and figs/bench.png
	@env -u AGE_DATA $(PY) tests/bench $(SIZES)

faces: $(READY)  ## render those of the shipped faces that are missing, on all cores
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m data.generator

lint: $(READY)  ## what the pre-commit hooks check
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m nbstripout --verify --keep-output --keep-count --keep-id notebooks/*.ipynb

clean:  ## remove what the others made: .venv, runs, caches
	rm -rf .venv runs *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.git -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
