# Everything a person types. `make` alone lists it.
SHELL := /bin/bash
PYTHON ?= python3.11
UV_VERSION := 0.13.9
CHECKOV_VERSION := 3.3.30
CLICKSTREAM := .venv/bin/python -m cli.main

INPUT ?=
USERS ?=
LAKE ?=
REPORT ?=
EVENTS ?=
BENCH ?=
FRONT ?=
CHAOS ?=
FUZZ ?= 5000

ifneq ($(words $(CURDIR)),1)
$(error PyFlink starts its Python workers by a path without spaces. Next: move "$(CURDIR)" to a folder whose path has none)
endif

.PHONY: help setup run test lint policy unit contract pipeline integration bench package lock clean front bench-queries fuzz chaos

help: ## list what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.locked ## everything a fresh machine needs, without root
	@$(CLICKSTREAM) setup

front: setup ## an API Gateway that runs here, on a Python 3.12 or 3.13 of its own
	@$(CLICKSTREAM) setup --front

run: $(if $(filter api,$(FRONT)),front,setup) ## the whole pipeline here; INPUT= USERS= LAKE= REPORT= EVENTS= FRONT=api are optional
	@$(CLICKSTREAM) run $(if $(INPUT),--input "$(INPUT)") $(if $(USERS),--users "$(USERS)") \
		$(if $(LAKE),--lake "$(LAKE)") $(if $(REPORT),--report "$(REPORT)") $(if $(EVENTS),--events "$(EVENTS)") $(if $(FRONT),--front "$(FRONT)")

test: front lint policy .venv-peers/.locked ## lint, types, policy scan and all tests
	@.venv/bin/python tests/needs.py
	.venv/bin/python -m pytest tests/unit tests/contract tests/pipeline tests/integration

lint: .venv/.locked ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

policy: .venv-policy/.locked ## scan the CloudFormation templates; deploy/checkov.yaml says what is left out, and why
	@.venv-policy/bin/checkov --config-file deploy/checkov.yaml

unit: .venv/.locked ## the tests that need no Java and no server
	.venv/bin/python -m pytest tests/unit

contract pipeline: setup
	.venv/bin/python -m pytest tests/$@

integration: front .venv-peers/.locked
	.venv/bin/python -m pytest tests/$@

fuzz: .venv/.locked ## hostile records, judged by the oracle; FUZZ=50000 examples of each property and a million at random
	FUZZ=$(FUZZ) .venv/bin/python -m pytest tests/fuzz tests/unit/test_decode.py tests/unit/test_process.py \
		-k "oracle" --hypothesis-profile=fuzz

bench: setup .venv-peers/.locked ## the whole job, its stages and other ways to do it, in one table; BENCH="--events 2000000"
	@.venv/bin/python -m tests.bench $(BENCH)

bench-queries: setup ## seconds and memory of each query on ten million events; BENCH="--events 1000000"
	@.venv/bin/python -m tests.bench.queries $(BENCH)

chaos: setup ## every fault on this machine, and what was lost; CHAOS="--only kill-commit s3-down"
	@.venv/bin/python -m tests.chaos $(CHAOS)

package: setup ## the zip for Managed Flink
	@$(CLICKSTREAM) package

lock: ## pin all packages anew from pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --all-extras --no-emit-index-url --no-header \
		--no-annotate -o requirements.lock pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate -c requirements.lock -o deploy/requirements.lock pyproject.toml
	echo checkov==$(CHECKOV_VERSION) | .venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -o deploy/checkov.lock -
	for lambda in names offers scaling; do .venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -c requirements.lock -o deploy/lambdas/$$lambda.lock \
		deploy/lambdas/$$lambda.in; done
	.venv/bin/uv pip compile -q --python-version 3.12 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate -o cli/localemu.lock cli/localemu.in
	.venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate -c requirements.lock -o tests/bench/peers.lock tests/bench/peers.in

clean: ## forget all local data; `make setup` fetches what it needs again
	rm -rf .data dist flink_app/target node_modules .venv .venv-policy .venv-peers

.venv/.locked: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11 python3.11-venv"; exit 1; }
	@echo "▸ Python packages into .venv (once)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || { echo "no venv: apt-get install python3.11-venv"; exit 1; }
	@test -x .venv/bin/uv || .venv/bin/python -m pip install -q --disable-pip-version-check "uv==$(UV_VERSION)"
	@.venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
	@.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# checkov pins packages that ours need in other versions
.venv-policy/.locked: deploy/checkov.lock | .venv/.locked
	@echo "▸ checkov into .venv-policy (once)"
	@test -x .venv-policy/bin/python || .venv/bin/uv venv -q --python .venv/bin/python .venv-policy
	@.venv/bin/uv pip sync -q --python .venv-policy/bin/python --require-hashes deploy/checkov.lock
	@touch $@

# polars alone is larger than most of what the job needs
.venv-peers/.locked: tests/bench/peers.lock | .venv/.locked
	@echo "▸ what the job is compared with, into .venv-peers (once)"
	@test -x .venv-peers/bin/python || .venv/bin/uv venv -q --python .venv/bin/python .venv-peers
	@.venv/bin/uv pip sync -q --python .venv-peers/bin/python --require-hashes tests/bench/peers.lock
	@touch $@
