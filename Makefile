# What to do with this project. `make help` lists it; each target does all of its own set-up.
# CLUSTER=local (the default) makes a cluster on this machine, as root; CLUSTER=current uses the kubeconfig in use.
SHELL := /bin/bash
PYTHON := .venv/bin/python
CLUSTER ?= local
export CLUSTER

# Programs and kubeconfig of the cluster, for one line of shell.
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

cluster: ## start the test cluster, with its images (quick if it runs)
	@tests/cluster/setup.sh
	@$(PYTHON) -m tests.cluster up

cluster-down: python ## stop the test cluster; programs and images stay in the cache
	@$(PYTHON) -m tests.cluster down

cluster-env: ## print what a shell needs to use the cluster: eval "$(make -s cluster-env)"
	@$(PYTHON) -m tests.cluster env

images: ## build the images again where their sources changed, and load them into the cluster
	@tests/cluster/setup.sh
	@$(PYTHON) -m tests.cluster images

lint: python ## check style, types and layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

unit: python ## run the tests that need no cluster
	@$(PYTHON) -m pytest -n 2 --dist worksteal tests/unit

api: cluster ## run the tests of the API: CRDs, admission, roles
	@$(IN_CLUSTER) $(PYTHON) -m pytest tests/api

# Three modules at a time, but for the tests that disturb all others; pytest says 5 where ARGS leaves no test.
e2e: cluster ## run the end-to-end tests (ARGS='-k EXPR' for some of them)
	@$(IN_CLUSTER) $(PYTHON) -m pytest -v -n 3 --dist loadscope --no-loadscope-reorder -m 'not alone' tests/e2e $(ARGS) || [ $$? = 5 ]
	@$(IN_CLUSTER) $(PYTHON) -m pytest -v -m alone tests/e2e $(ARGS) || [ $$? = 5 ]

demo: cluster ## watch a rolling restart under load that loses nothing
	@$(IN_CLUSTER) $(PYTHON) -m tests.demo

bench: cluster ## measure Quiesce against StatefulSets; writes out/bench.json and README's figures (a quarter of an hour)
	@$(IN_CLUSTER) $(PYTHON) -m tests.bench

test: setup lint unit ## all checks and tests, on a cluster that is stopped at the end (KEEP=1: goes on running)
	@status=0; $(MAKE) --no-print-directory api e2e || status=$$?; \
	  [ -n "$(KEEP)" ] || $(PYTHON) -m tests.cluster down; exit $$status
