# `make help` lists the targets; each sets up everything that it needs.
# CLUSTER=local (the default) starts a cluster on this machine, as root; CLUSTER=current uses the current kubeconfig.
SHELL := /bin/bash
PYTHON := .venv/bin/python
CLUSTER ?= local
export CLUSTER

# Programs and kubeconfig of the cluster, for one line of a recipe.
IN_CLUSTER = eval "$$($(PYTHON) -m tests.cluster env)" &&

.DEFAULT_GOAL := help
.PHONY: help setup python cluster cluster-down cluster-env images lint unit api e2e demo bench test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, .venv, the programs of the cluster
	@tests/cluster/setup.sh
	@[ "$(CLUSTER)" = current ] || $(PYTHON) -m tests.cluster programs

python:
	@tests/cluster/setup.sh python

cluster: ## start the test cluster, with its images (quick if it is running)
	@tests/cluster/setup.sh
	@$(PYTHON) -m tests.cluster up

cluster-down: python ## stop the test cluster; programs and images stay in the cache
	@$(PYTHON) -m tests.cluster down

cluster-env: ## print what a shell needs to use the cluster: eval "$(make -s cluster-env)"
	@$(PYTHON) -m tests.cluster env

images: ## rebuild the images whose sources have changed, and load them into the cluster
	@tests/cluster/setup.sh
	@$(PYTHON) -m tests.cluster images

lint: python ## check style, types and layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

unit: python ## run the tests that need no cluster
	@$(PYTHON) -m pytest -n 2 tests/unit

api: cluster ## run the tests of the API: CRDs, admission, roles
	@$(IN_CLUSTER) $(PYTHON) -m pytest tests/api

# Three modules at a time, except for the tests that disturb all others; pytest exits with 5 if ARGS selects no test.
e2e: cluster ## run the end-to-end tests (ARGS='-k EXPR' for some of them)
	@$(IN_CLUSTER) $(PYTHON) -m pytest -v -n 3 --dist loadscope --no-loadscope-reorder -m 'not alone' tests/e2e $(ARGS) || [ $$? = 5 ]
	@$(IN_CLUSTER) $(PYTHON) -m pytest -v -m alone tests/e2e $(ARGS) || [ $$? = 5 ]

demo: cluster ## watch a rolling restart under load that loses nothing
	@$(IN_CLUSTER) $(PYTHON) -m tests.demo

bench: cluster ## measure Quiesce against StatefulSets; writes out/bench.json and the figures in README.md (15 minutes)
	@$(IN_CLUSTER) $(PYTHON) -m tests.bench

test: setup lint unit ## run all checks and tests, on a cluster that is stopped at the end (KEEP=1 keeps it running)
	@status=0; $(MAKE) --no-print-directory api e2e || status=$$?; \
	  [ -n "$(KEEP)" ] || $(PYTHON) -m tests.cluster down; exit $$status
