# Every target creates what it needs; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
TRAINERS := .venv-bench-trainers
ANOMALY := .venv-bench-anomaly
LABELLING := .venv-bench-labelling
TOOLS := .venv-tools
BIN := $(VENV)/bin
WORKERS := 3
export NO_ALBUMENTATIONS_UPDATE := 1
export DO_NOT_TRACK := 1

.PHONY: help install demo test pytest drill kills cluster-drill lint format bench bench-features bench-memory bench-large bench-neighbours bench-views bench-eyes bench-backbones bench-head bench-finetune bench-anomaly bench-labelling bench-scale docs lock audit-packages pin-images clean

help:
	@echo "make demo     install, run the whole pipeline on the sample images, print a summary"
	@echo "make test     install, run the linters and all tests"
	@echo "make drill    six nights of unattended retraining with real servers and remotes, an outage and a kill"
	@echo "make kills    kill -9 at a hundred moments of every command, and sixty pairs of promotions, about half an hour"
	@echo "make cluster-drill  a Ray cluster on machines of network namespaces, and what fails on it; needs Linux and root"
	@echo "make lint     ruff, mypy and the import contracts"
	@echo "make docs     generate the reference, build the documentation as a site in build/docs"
	@echo "make install  create the environment in $(VENV)"
	@echo "make bench    benchmark against other frameworks, about an hour; PHOTOS=FOLDER names photographs, FASHION=FOLDER"
	@echo "              the four files of Fashion-MNIST (or one part: make bench-features, bench-memory, bench-head)"
	@echo "make bench-large  memory of every stage for 10,000 and 100,000 images, and of a head of a million rows, an hour"
	@echo "make bench-neighbours PHOTOS=FOLDER  what the index of near-copies finds, and how fast, ten minutes"
	@echo "make bench-backbones  compare the eighteen networks of the Keras table with Keras itself, twenty minutes"
	@echo "make bench-finetune LABELLED=FOLDER  compare fine-tuning with timm, Hugging Face and fastai, half an hour"
	@echo "make bench-labelling DATA=FOLDERS  compare which images to label with scikit-activeml and cleanlab, ten minutes"
	@echo "make bench-scale  compare images as files and in shards, an hour"
	@echo "make bench-anomaly DATA=FOLDER SIGNS=FOLDER  compare anomaly detection with anomalib, an hour"
	@echo "make lock     write deploy/locks (versions and hashes for the containers) after a change of constraints.txt"
	@echo "make audit-packages   look for known vulnerabilities of all pinned packages; needs a network"
	@echo "make pin-images       add digests to the images in deploy/.env; needs Docker and a network"
	@echo "make clean    remove the environments"

install: $(VENV)/.done

# The pip that comes with Python 3.11 takes three times as long as this one to find the versions. Either would compile
# 22,000 files one after another; all cores do so together, without the packages' own tests.
$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Graft needs Python 3.11 to 3.13; name one with make PYTHON=python3.11"; exit 1; }
	@echo "creating $(VENV): some minutes and about 7 GB of disk, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=26,<27'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true # some are of another version of Python
	@touch $@

demo: install
	@test -d .git || git init --quiet
	@test -f data/raw.dvc || $(BIN)/graft sample
	@test -d data/raw || $(BIN)/dvc checkout --quiet data/raw.dvc
	@$(BIN)/graft repro
	@$(BIN)/graft summary

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pre-commit validate-config

# Together: mypy works on one core for most of a minute.
test: install
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

# Tests mostly wait for processes to start, so there is one worker more than the two cores that the suite is planned for.
pytest: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# The reference pages from the code, then the site from all pages. Neither needs a network.
docs: install
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/docs/index.html"

# FOLDER=... keeps the files of the nights.
drill: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=. $(BIN)/python tests/drill.py $(if $(FOLDER),--folder "$(FOLDER)") $(ARGS)

kills: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=. $(BIN)/python tests/kill_drill.py $(if $(FOLDER),--folder "$(FOLDER)") $(ARGS)

cluster-drill: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m drill
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=. $(BIN)/python tests/cluster_drill.py $(if $(FOLDER),--folder "$(FOLDER)") $(ARGS)

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Options for bench/features.py go into ARGS; without any, the results are published in docs/explanation/benchmarks.md.
bench: bench-features bench-memory bench-head

bench-features: install $(BENCH)/.done
	@$(BIN)/python -m bench.features $(if $(PHOTOS),--photos "$(PHOTOS)") $(or $(ARGS),--publish)

bench-memory: install
	@$(BIN)/python -m bench.memory $(if $(ARGS),$(findstring --quick,$(ARGS)),--publish)

# Half an hour on two cores; five gigabytes of disk.
bench-large: install
	@$(BIN)/python -m bench.large $(or $(ARGS),--publish)

bench-neighbours: install
	@$(BIN)/python -m bench.neighbours $(if $(PHOTOS),--photos "$(PHOTOS)") $(or $(ARGS),--publish)

bench-head: install
	@$(BIN)/python -m bench.head $(if $(FASHION),--data "$(FASHION)") $(or $(ARGS),--publish)

# LABELLED has photographs in one folder per class; half an hour on two cores.
bench-finetune: install $(TRAINERS)/.done
	@$(BIN)/python -m bench.finetune --labelled "$(LABELLED)" $(or $(ARGS),--publish)

# DATA is in MVTec's layout, SIGNS has small photographs to scratch; most of the hour is one coreset of anomalib.
bench-anomaly: install $(ANOMALY)/.done
	@$(BIN)/python -m bench.anomaly --data "$(DATA)" --signs "$(SIGNS)" $(or $(ARGS),--publish)

# DATA has folders of images, a folder a class each.
bench-labelling: install $(LABELLING)/.done
	@$(BIN)/python -m bench.labelling $(if $(DATA),--data $(DATA)) $(or $(ARGS),--publish)

bench-scale: install
	@$(BIN)/python -m bench.scale $(or $(ARGS),--publish)

bench-views: install
	@$(BIN)/python -m bench.views --photos "$(PHOTOS)" $(or $(ARGS),--publish)

bench-eyes: install
	@$(BIN)/python -m bench.eyes --photos "$(PHOTOS)" $(or $(ARGS),--publish)

bench-backbones: install $(BENCH)/.done
	@$(BIN)/python -m bench.backbones $(or $(ARGS),--publish)

$(BENCH)/.done: bench/requirements.txt | install
	@echo "creating $(BENCH) for the other frameworks: a minute and 2 GB of disk, once"
	@test -x $(BENCH)/bin/python || $(BIN)/python -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@touch $@

$(TRAINERS)/.done: bench/requirements-trainers.txt | install
	@echo "creating $(TRAINERS) for the other trainers: some minutes and 6 GB of disk, once"
	@test -x $(TRAINERS)/bin/python || $(BIN)/python -m venv $(TRAINERS)
	@$(TRAINERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements-trainers.txt
	@touch $@

$(ANOMALY)/.done: bench/requirements-anomaly.txt | install
	@echo "creating $(ANOMALY) for anomalib: some minutes and 7 GB of disk, once"
	@test -x $(ANOMALY)/bin/python || $(BIN)/python -m venv $(ANOMALY)
	@$(ANOMALY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements-anomaly.txt
	@touch $@

$(LABELLING)/.done: bench/requirements-labelling.txt | install
	@echo "creating $(LABELLING) for scikit-activeml and cleanlab: a minute and 600 MB of disk, once"
	@test -x $(LABELLING)/bin/python || $(BIN)/python -m venv $(LABELLING)
	@$(LABELLING)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements-labelling.txt
	@touch $@

$(TOOLS)/.done: deploy/requirements-tools.txt
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement deploy/requirements-tools.txt
	@touch $@

lock: $(TOOLS)/.done
	@$(TOOLS)/bin/python deploy/lock.py

# Strict: a package that the service does not know is an error, where pip-audit would say "no known vulnerabilities".
audit-packages: $(TOOLS)/.done
	@for file in constraints.txt deploy/locks/*.txt; do \
		echo "$$file"; \
		$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement $$file $(ARGS) || exit 1; \
	done

pin-images:
	@$(PYTHON) deploy/pin_images.py deploy/.env

clean:
	@rm -rf $(VENV) $(BENCH) $(TRAINERS) $(ANOMALY) $(TOOLS)
