# `make train` and `make test` set up everything they need in .venv first.

# Of .venv: empty for the first of Python 3.11, 3.10, 3.9 on PATH, else 3.11 through uv.
PYTHON ?=
VENV ?= .venv
GIN_FILE ?= apex/cartpole.gin
ROOT_DIR ?=
TRAIN_FLAGS ?=
TEST_FLAGS ?=
# Most tests wait for processes of their own: two more than there are cores keep these busy.
TEST_PROCESSES ?= $(shell echo $$(($$(nproc) + 2)))
BUILD ?= docker build

STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: train test test-slow lint format benchmark images manifests docs clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/'

# pip would compile every file, one after another; a quarter of them is ever imported, and compiled
# then: here, before several processes of tests or roles do it at once.
$(STAMP): setup.py constraints.txt
	@./make_venv.sh $(VENV) $(PYTHON)
	@echo "installing tfdrl into $(VENV) (some minutes, the first time only)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  --constraint constraints.txt --editable '.[atari,test]'
	@$(BIN)/python -c 'import tensorflow, tf_agents, reverb' 2>/dev/null || :  # see above
	@touch $@

train: $(STAMP)  ## train Ape-X DQN on CartPole-v1 (or GIN_FILE=...) until it is solved
	@$(BIN)/python -m binaries.train --gin_file=$(GIN_FILE) \
	  $(if $(ROOT_DIR),--root_dir=$(ROOT_DIR)) $(TRAIN_FLAGS)

test: $(STAMP) lint  ## the tests, without the long learning runs
	@rm -f .pytest_cache/v/cache/lastfailed
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
	  $(TEST_FLAGS) || $(if $(TEST_FLAGS),false,$(BIN)/python tests/support/failed_again.py $$?)

# Learning runs one after another: they have time limits.
test-slow: $(STAMP)  ## fault stories on several hosts, benchmarks, learning runs (two hours)
	@$(BIN)/python -m pytest -m slow --timeout=1800 -n $(TEST_PROCESSES) --dist loadfile \
	  --no-loadscope-reorder --ignore=tests/runs $(TEST_FLAGS)
	@$(BIN)/python -m pytest -m slow --timeout=1800 tests/runs $(TEST_FLAGS)

lint: $(STAMP)  ## style and layout
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP)  ## lay the code out, and keep the names that gin files may use
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	@$(BIN)/python -m tfdrl.configuration.keep

benchmark: $(STAMP)  ## the speed of the parts and of the whole
	@$(BIN)/python -m binaries.benchmark --gin_file=$(GIN_FILE)

images:  ## the container images tfdrl and tfdrl-seed-actor (BUILD='podman build', or another)
	$(BUILD) -f docker/seed-actor.Dockerfile -t tfdrl-seed-actor .
	$(BUILD) -f docker/tfdrl.Dockerfile -t tfdrl .

manifests: $(STAMP)  ## docker/compose.yaml and docker/kubernetes/base anew, from the gin files
	@PYTHONPATH=. $(BIN)/python docker/generate.py

docs: $(STAMP)  ## the pages as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

clean:  ## remove the virtual environment and caches, not the runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
