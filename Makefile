# Needs only make and Python 3.11 or later. Everything is installed in this folder (.venv, .tools), except Kafka's jars,
# which go to the user's cache once; and except Debian's chromium, for the tests of the operators' page (`.ci/run`
# installs it).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up stack generate release wheel check test bench storm losses poison smuggle hostile fuzz soak verify-soak

# Any Python that is new enough; the base interpreter if this runs in a virtual environment.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(getattr(sys, "_base_executable", sys.executable))' \
	2>/dev/null && break; done)
endif

UV_VERSION := 0.13.9
LOCAL_UV := .tools/uv-$(UV_VERSION)/bin/uv
UV := $(or $(shell command -v uv 2>/dev/null),$(LOCAL_UV))
UV_TO_MAKE := $(filter $(LOCAL_UV),$(UV))

export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV PYTHONPATH

SYNCED := .venv/.synced
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-12s %s\n' "$$name" "$$what"; done

setup: $(SYNCED) ## install the locked dependencies into .venv (the other targets do so too)

demo: $(SYNCED) ## start everything and demonstrate what the service does
	.venv/bin/python docs/examples/demo/demo.py $(ARGS)

up: $(SYNCED) ## run the service on a local Kafka and Postgres, data in .local, until ^C
	.venv/bin/orgs up $(ARGS)

stack: $(SYNCED) ## run only the local Kafka and Postgres, data in .local, until ^C
	.venv/bin/python -m org_local $(ARGS)

generate: $(SYNCED) ## write every generated file: schemas, AsyncAPI, OpenAPI, tables of settings, metrics and contract
	.venv/bin/python -m org_service.documentation

release: $(SYNCED) ## keep the contract of the present version, which all later ones must be compatible with
	.venv/bin/python -m org_service.documentation.release

# The time of the last commit is the time of every file in the wheel, so that the same commit gives the same bytes.
wheel: $(SYNCED) $(UV_TO_MAKE) ## build the contract package into dist, reproducibly
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct -- events) $(UV) build --package org-events --wheel --out-dir dist

check: $(SYNCED) ## format, lint, types, import contracts, tests without servers: under a minute
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/pytest -q -n 2 --dist loadfile tests/unit tests/contract $(ARGS)

# Most tests wait most of the time: two processes, each with a Kafka and a Postgres of its own, share the files.
test: $(SYNCED) ## run every test against real servers and in chromium, without benchmarks (ARGS="-n 0" in one process)
	.venv/bin/python -m org_local --record
	.venv/bin/pytest -m "not bench" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(SYNCED) ## measure speed
	.venv/bin/python -m tests.bench $(ARGS)

smuggle: $(SYNCED) ## run the request smuggling cases behind a real nginx, if one is installed
	ORGS_TEST_PROXY=nginx .venv/bin/pytest -q tests/integration/edge/test_smuggling.py $(ARGS)
	ORGS_TEST_PROXY=nginx-websocket .venv/bin/pytest -q tests/integration/edge/test_smuggling.py $(ARGS)

hostile: $(SYNCED) ## hold 10,000 useless connections to an edge, and measure what an honest client notices
	.venv/bin/python -m tests.chaos.hostile $(ARGS)

storm: $(SYNCED) ## kill workers and relays at random, then prove that nothing was lost (ARGS=... for seed and length)
	.venv/bin/python -m tests.chaos.storm $(ARGS)

losses: $(SYNCED) ## lose ends of topics while commands flow, 20 times of each kind and by unclean elections, then prove it
	.venv/bin/python -m tests.chaos.losses $(ARGS)

poison: $(SYNCED) ## mix 100,000 hostile records with as many good ones, then verify each outcome
	.venv/bin/python -m tests.chaos.poison $(ARGS)

fuzz: $(SYNCED) $(UV_TO_MAKE) ## fuzz the decoders of records, tokens and headers for ten minutes (ARGS="--seconds 60")
	UV_PROJECT_ENVIRONMENT=.fuzz/venv $(UV) sync --locked --group fuzz
	.fuzz/venv/bin/python -m tests.fuzz $(ARGS)

soak: $(SYNCED) ## watch memory and speed over a million commands
	.venv/bin/python -m tests.bench.soak $(ARGS)

verify-soak: $(SYNCED) ## verify again and again under load, for an hour, without a false alarm (SECONDS=3600)
	VERIFY_SECONDS=$(or $(SECONDS),3600) .venv/bin/pytest -n 0 -s --timeout 0 \
		tests/integration/operate/test_verify.py -k under_load

# The stamp is written last and removed first, so a failed setup is repeated.
$(SYNCED): uv.lock pyproject.toml events/pyproject.toml service/pyproject.toml deploy/local/pyproject.toml $(UV_TO_MAKE)
	@rm -f $@
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; install one, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	$(UV) sync --locked
	@touch $@

# If uv is not installed: install it into its own environment, renamed when complete. If Python has no ensurepip
# (Debian packages it separately), the system's pip is used instead.
$(LOCAL_UV):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; install one, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	@rm -rf .tools/uv.new && mkdir -p .tools
	@{ "$(PYTHON)" -m venv .tools/uv.new >/dev/null 2>&1 && .tools/uv.new/bin/python -m pip install -q "uv==$(UV_VERSION)"; } \
		|| { rm -rf .tools/uv.new && "$(PYTHON)" -m pip install -q --target .tools/uv.new "uv==$(UV_VERSION)"; } \
		|| { rm -rf .tools/uv.new; echo "error: uv can't be installed by pip; see above, or put uv on PATH" >&2; exit 1; }
	@rm -rf .tools/uv-$(UV_VERSION) && mv .tools/uv.new .tools/uv-$(UV_VERSION)
