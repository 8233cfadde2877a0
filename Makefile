# Every target sets itself up: only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
WORKERS ?= 2
SEEDS ?= 3000
CORES ?= $(shell nproc)
SIM_LONG = $(PY) -m p2pledger sim run --jobs $(CORES)
SCENARIO ?= standard

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports unit consent-reference process simulate sim-long model model-short test-system mutants mutation bench requirements clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

$(VENV)/.runtime: requirements/runtime.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@echo "$(CURDIR)" > $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/p2pledger-checkout.pth
	@printf '#!/bin/sh\nexec "$(CURDIR)/$(PY)" -m p2pledger "$$@"\n' > $(BIN)/p2pledger && chmod +x $(BIN)/p2pledger
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.model: $(VENV)/.runtime requirements/model.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/model.txt
	@touch $@

demo: $(VENV)/.runtime  ## the main job: a real four-node network finalises real health transactions
	@$(PY) -m p2pledger demo $(DEMO_ARGS)

test: check  ## lint, types, imports and every test that needs only Python

check: lint types imports unit simulate process

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check p2pledger tests bench
	$(BIN)/ruff format --check p2pledger tests bench

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

imports: $(VENV)/.dev  ## the import floors of docs/architecture.md
	$(BIN)/lint-imports

unit: $(VENV)/.dev  ## unit, interface, scenario, vector and network tests
	$(PY) -m pytest -n $(WORKERS) -q tests -m "not process and not system" --ignore=tests/simulation

consent-reference: $(VENV)/.dev  ## 100,000 random consents and requests, judged by the evaluator and by its reference
	CONSENT_CASES=100000 $(PY) -m pytest -q tests/unit/health/test_evaluator.py::test_decide_agrees_with_the_reference

simulate: $(VENV)/.dev  ## the short simulation campaign, with its counters of reached situations
	$(PY) -m pytest -n $(WORKERS) -q tests/simulation

sim-long: $(VENV)/.runtime  ## the long simulation, all cores, resumable: 100 million messages, 100,000 Twins scenarios
	@mkdir -p build/sim-long
	$(SIM_LONG) --layer core --nodes 4 --seeds 40000 --messages 60000000 --journal build/sim-long/core-4.jsonl
	$(SIM_LONG) --layer core --nodes 7 --seeds 20000 --messages 50000000 --journal build/sim-long/core-7.jsonl
	$(SIM_LONG) --layer twins --nodes 4 --seeds 100000 --journal build/sim-long/twins-4.jsonl
	$(SIM_LONG) --nodes 4 --seeds $(SEEDS) --journal build/sim-long/engine-4.jsonl
	$(SIM_LONG) --nodes 7 --seeds $(SEEDS) --journal build/sim-long/engine-7.jsonl

process: $(VENV)/.dev  ## real node processes over TLS: kills, restarts, cut links
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -q tests/node -m process --ignore=tests/node/test_bench_guard.py
	$(PY) -m pytest -q tests/node/test_bench_guard.py

mutants: $(VENV)/.dev  ## every seeded defect is noticed, by its test and by simulation (docs/mutants.md)
	$(PY) -m tests.mutants.run --jobs $(WORKERS)

mutation: $(VENV)/.dev  ## which small changes of consensus/ and health/ no test notices (docs/mutation.md)
	$(PY) -m tests.mutation.run --jobs $(WORKERS) --write

model: $(VENV)/.model  ## TLC on every model of the agreement (docs/model.md): half an hour, needs Java
	$(PY) -m tests.model.run --workers $(WORKERS)

model-short: $(VENV)/.model  ## TLC on the small models and every unsafe variant: minutes, needs Java
	$(PY) -m tests.model.run --short --workers $(WORKERS)

test-system: $(VENV)/.dev  ## what needs Debian packages or root; installs them, fails rather than skips
	bash tests/system/run

$(VENV)/.bench: $(VENV)/.runtime requirements/bench.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

bench: $(VENV)/.bench  ## every goal in one run, about 20 minutes on a quiet machine (SCENARIO=health: another one)
	$(PY) -m bench run $(SCENARIO) $(BENCH_ARGS)

requirements:  ## pin requirements/*.in with hashes and without host names (needs uv)
	for f in runtime dev bench model; do uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/$$f.in -o requirements/$$f.txt; done

clean:  ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
