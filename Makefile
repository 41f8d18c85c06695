# demo: see it work.  test: run the tests.  lint: format, lint, types, layers.
# check-deploy: read the deployment as its programs do, and build without an engine what the image holds.
# dashboards: write what Grafana is given, from deploy/grafana/source.
# bench: what a request costs, and counting.  bench-ledger: what a call costs the store.
# Each installs what it needs into .venv, with uv where it is there, else with venv and pip.

PYTHON ?= python3
RUN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

ifdef UV
CREATE = uv venv --quiet --allow-existing --python $(PYTHON) .venv
INSTALL = VIRTUAL_ENV=$(CURDIR)/.venv uv pip install --quiet
else
CREATE = $(PYTHON) -m venv .venv
INSTALL = $(RUN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test lint check-deploy dashboards bench bench-ledger lock clean

demo: .venv/.ready
	@$(RUN)/weir demo $(ARGS)

test: .venv/.ready-dev
	@$(RUN)/python -m pytest $(ARGS)

lint: .venv/.ready-dev
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

check-deploy: .venv/.ready-dev
	@$(RUN)/python -m pytest -m "network or not network" tests/deploy/test_gates.py tests/deploy/test_image.py tests/deploy/test_deployment.py tests/deploy/test_dashboards.py $(ARGS)

dashboards: .venv/.ready
	@$(RUN)/python -m deploy.grafana.source

bench: .venv/.ready-dev
	@$(RUN)/python -m benchmarks $(ARGS)
	@echo
	@$(RUN)/python -m benchmarks.tokens

bench-ledger: .venv/.ready-dev
	@$(RUN)/python -m benchmarks.ledger $(ARGS)

# The locks name versions and hashes, and no place to get them from.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --extra embedded -o requirements.lock pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --no-header --extra embedded --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --no-header --group build -c requirements-dev.lock -o requirements-build.lock

clean:
	rm -rf .venv dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/.ready: requirements.lock pyproject.toml
	@echo "installing into .venv ..."
	@$(CREATE)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

.venv/.ready-dev: .venv/.ready requirements-dev.lock
	@echo "installing what the tests need ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
