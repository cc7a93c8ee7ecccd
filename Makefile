# Everything a person types. `make` alone lists it.
SHELL := /bin/bash
PYTHON ?= python3.11
UV_VERSION := 0.13.9
CLICKSTREAM := .venv/bin/python -m cli.main

INPUT ?=
USERS ?=
LAKE ?=
REPORT ?=
EVENTS ?=
BENCH ?=
CHAOS ?=
FUZZ ?= 5000

.PHONY: help setup run test lint unit contract pipeline integration fuzz bench chaos package lock clean

help: ## list what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.locked ## everything a fresh machine needs, without root
	@$(CLICKSTREAM) setup

run: setup ## the whole pipeline here; INPUT= USERS= LAKE= REPORT= EVENTS= are optional
	@$(CLICKSTREAM) run $(if $(INPUT),--input "$(INPUT)") $(if $(USERS),--users "$(USERS)") \
		$(if $(LAKE),--lake "$(LAKE)") $(if $(REPORT),--report "$(REPORT)") $(if $(EVENTS),--events "$(EVENTS)")

test: setup lint ## lint, types and all tests
	@.venv/bin/python tests/needs.py
	.venv/bin/python -m pytest tests/unit tests/contract tests/pipeline tests/integration

lint: .venv/.locked ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

unit: .venv/.locked ## the tests that need no Java and no server
	.venv/bin/python -m pytest tests/unit

contract pipeline integration: setup
	.venv/bin/python -m pytest tests/$@

fuzz: .venv/.locked ## hostile records, judged by the oracle; FUZZ=50000 examples of each property and a million at random
	FUZZ=$(FUZZ) .venv/bin/python -m pytest tests/fuzz tests/unit/test_decode.py tests/unit/test_process.py \
		-k "oracle" --hypothesis-profile=fuzz

bench: setup ## events a second of the whole job and of its batch function; BENCH="--events 2000000"
	@.venv/bin/python -m tests.bench $(BENCH)

chaos: setup ## every fault on this machine, and what was lost; CHAOS="--only kill-commit s3-down"
	@.venv/bin/python -m tests.chaos $(CHAOS)

package: setup ## the zip for Managed Flink
	@$(CLICKSTREAM) package

lock: ## pin all packages anew from pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --all-extras --no-emit-index-url --no-header \
		--no-annotate -o requirements.lock pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate -c requirements.lock -o deploy/requirements.lock pyproject.toml

clean: ## forget all local data; `make setup` fetches what it needs again
	rm -rf .data dist flink_app/target node_modules .venv

.venv/.locked: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11 python3.11-venv"; exit 1; }
	@echo "▸ Python packages into .venv (once)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || { echo "no venv: apt-get install python3.11-venv"; exit 1; }
	@test -x .venv/bin/uv || .venv/bin/python -m pip install -q --disable-pip-version-check "uv==$(UV_VERSION)"
	@.venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes requirements.lock
	@.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@
