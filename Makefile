# Everything to do with a checkout. `make` alone lists the targets.

MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The first Python that is 3.11 or newer and has venv; `make PYTHON=...` overrides it.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
endif

BIN := .venv/bin
INSTALLED := .venv/installed
READY := .venv/ready
# Errors only: a pip configuration of a machine prints warnings that have nothing to do with the set-up.
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
SOURCE_OF_BUILD = pyproject.toml $(wildcard setup.py native/* native/generator/* native/trace/* native/bpf/*)
# A test of sockets waits half of its time, so two tests run on each processor.
WORKERS = $$((2 * $$(nproc)))
PYTHON_CODE = $(wildcard src tests benchmarks examples release docs/pictures docs/reference setup.py)
C_CODE = $(wildcard native/*.[ch] native/generator/*.[ch] native/trace/*.[ch] native/bpf/*.[ch] src/bothends/bench/reference_servers/*.c src/bothends/lab/source_lines/*.c)

# Python keeps compiled modules: the tests start it a thousand times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

.PHONY: setup
setup: $(READY) ## make .venv with all that the tests and the other targets need

# The stamps are made last, so an interrupted set-up starts over.
$(INSTALLED): requirements.lock $(SOURCE_OF_BUILD)
	@test -n "$(PYTHON)" || { echo "bothends needs Python 3.11 or newer with venv (Debian: python3-venv)" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --no-compile --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(READY): requirements-dev.lock $(INSTALLED)
	@echo "installing what the tests need"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## see it work
	@$(BIN)/bothends demo

.PHONY: check
check: format lint types test ## what CI runs: format, lint, types, test

.PHONY: format
format: $(READY) ## check the formatting with ruff and clang-format
	@$(BIN)/ruff format --quiet --check $(PYTHON_CODE) || { $(BIN)/ruff format --check $(PYTHON_CODE); exit 1; }
	@$(BIN)/clang-format --dry-run --Werror $(C_CODE)

.PHONY: lint
lint: $(READY) ## run ruff's checks
	@$(BIN)/ruff check --quiet $(PYTHON_CODE)

.PHONY: types
types: $(READY) ## run mypy --strict
	@$(BIN)/mypy --no-error-summary $(PYTHON_CODE)

.PHONY: test
test: $(READY) ## run the tests, two on each processor
	@$(BIN)/python -m compileall -q src tests  # tests with full disks would leave cut files
	@$(BIN)/pytest -q -n $(WORKERS) --dist worksteal

.PHONY: slow
slow: $(READY) ## run the slow tests
	@$(BIN)/python -m compileall -q src tests
	@$(BIN)/pytest -q -n $(WORKERS) --dist worksteal -m slow -o faulthandler_timeout=600

# A shorter run: make fuzz FUZZ_SECONDS=60. The inputs that failed are saved in tests/hostile/fuzz/corpus.
FUZZ_SECONDS = 600

.PHONY: fuzz
fuzz: $(READY) ## fuzz all that reads input of others, for ten minutes
	@$(BIN)/python -m tests.hostile.fuzz --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED))

# Some of them: make mutants PACKAGE=toxics, or make mutants ONLY=native-generation-unchecked
.PHONY: mutants
mutants: $(READY) ## run the tests against small mutations of the source, in copies of it
	@$(BIN)/python -m tests.mutants $(addprefix --package ,$(PACKAGE)) $(addprefix --only ,$(ONLY)) \
		$(addprefix --jobs ,$(JOBS))

# One engine, or shorter: make attack-hour ENGINE=epoll SECONDS=120
.PHONY: attack-hour
attack-hour: $(READY) ## attack each engine for an hour, and measure an honest client
	@$(BIN)/python -m benchmarks.attack_hour $(addprefix --engine ,$(ENGINE)) $(if $(SECONDS),--seconds $(SECONDS))

.PHONY: sanitize
sanitize: $(READY) ## run the C code's tests under the sanitizers (needs gcc with libasan)
	@$(BIN)/python native/sanitize.py

.PHONY: fmt
fmt: $(READY) ## format the code, and fix what ruff can fix
	@$(BIN)/ruff format --quiet $(PYTHON_CODE)
	@$(BIN)/ruff check --quiet --fix $(PYTHON_CODE)
	@$(BIN)/clang-format -i $(C_CODE)

.PHONY: api
api: $(READY) ## write docs/reference/api.md from the docstrings
	@$(BIN)/python docs/reference/make_api.py

# Of some versions: make dist DIST="--python 3.12"
.PHONY: dist
dist: $(READY) ## build the sdist, the wheels, their hashes and the SBOM into dist
	@$(BIN)/python -m release.make_dist $(DIST)

.PHONY: man
man: $(READY) ## write the man pages into man
	@$(BIN)/python -m release.make_man

.PHONY: docs
docs: $(READY) ## build the site into site
	@$(BIN)/python -m release.make_site

.PHONY: bench
bench: $(READY) ## measure the figures that the README shows
	@$(BIN)/python -m benchmarks

# Ignores this machine's pip configuration, so that the hashes hold everywhere.
EXTRAS = plots cluster mcp rivals dev
COMPILE = PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL= PIP_EXTRA_INDEX_URL= PIP_FIND_LINKS= \
	$(BIN)/pip-compile --upgrade --all-build-deps

.PHONY: lock
lock: $(READY) ## resolve requirements.lock (to run) and requirements-dev.lock (to test) again
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) $(addprefix --extra ,$(EXTRAS)) --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

.PHONY: clean
clean: ## remove everything generated, including .venv
	@rm -rf .venv build dist man site src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests $(wildcard benchmarks examples) -name __pycache__ -type d -prune -exec rm -rf {} +
