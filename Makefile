# Two commands: `make demo` (the main job, on embedded defaults) and `make test`. Both install what they need.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test lint unit bench faults lock schemas clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python -m demo $(if $(DEMO_S),--seconds $(DEMO_S))

test: $(VENV)/.dev servers lint
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-cache 2>&1 | tail -n 3; exit $${PIPESTATUS[0]}
	@$(BIN)/mypy

unit: $(VENV)/.dev
	@$(BIN)/pytest tests/unit

bench: $(VENV)/.dev servers
	@bash bench/ensure-limits.sh
	@$(BIN)/python -m bench $(BENCH)

# Every fault that docs/reliability.md lists, on real processes; one row: make faults FAULTS="--row kill-agent"
faults: $(VENV)/.dev servers
	@bash tests/faults/ensure-faults.sh
	@failed=0; $(BIN)/python -m tests.faults $(FAULTS) || failed=1; \
	if test -z "$(FAULTS)"; then \
		$(BIN)/python -m tests.simulation --seeds 10000 || failed=1; \
		$(BIN)/python -m tests.fuzz --seconds 300 || failed=1; \
	fi; exit $$failed

# The test servers that pip cannot install.
.PHONY: servers
servers:
	@bash tests/support/ensure-servers.sh

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; install it and try again" >&2; exit 69; }
	@echo "Making a virtual environment in $(VENV) …"
	@bash tests/support/ensure-venv.sh "$(PYTHON)" "$(VENV)"

$(VENV)/.demo: locks/demo.txt pyproject.toml | $(VENV)/bin/python
	@test -f $(VENV)/.dev || { echo "Installing the demo's packages …"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/demo.txt; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: locks/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the development packages …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Lock the versions anew after a change of dependencies (needs uv). No registry's address is written.
UV_LOCK := uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header --generate-hashes pyproject.toml
lock:
	$(UV_LOCK) --extra demo --extra fast --extra xlsx --extra watch --extra page --group dev -o locks/dev.txt
	$(UV_LOCK) --extra demo --group build -c locks/dev.txt -o locks/demo.txt
	$(UV_LOCK) --extra gateway -c locks/dev.txt -o locks/gateway.txt
	$(UV_LOCK) --extra gateway --extra opcua -c locks/dev.txt -o locks/gateway-opcua.txt
	$(UV_LOCK) --extra gateway --extra watch --extra page -c locks/dev.txt -o locks/gateway-views.txt
	$(UV_LOCK) --extra cloud -c locks/dev.txt -o locks/cloud.txt

# The JSON Schemas for editors, after a change of settings.
schemas: $(VENV)/.dev
	@$(BIN)/holdfast schema > config/agent.schema.json
	@$(BIN)/holdfast-cloud schema > config/cloud.schema.json

clean:
	rm -rf $(VENV) demo-data .mypy_cache .ruff_cache .hypothesis
