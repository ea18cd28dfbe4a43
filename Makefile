# Every target makes what it needs in .venv; a clean checkout wants only Python 3.11 or later, Rust 1.88 or later and a C linker.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := $(VENV)/oldest
# Tests that run beside each other: one more than processors, as many wait for other processes.
JOBS ?= $(shell expr $$(nproc) + 1)
ENGINE := src/ouroboros/dataplane/_engine.abi3.so
MESSAGES := src/ouroboros/wire/unicast/messages
CDEV := src/ouroboros/cdev/lib/.built
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
BARERING := $(wildcard bench/barering/src/*.rs bench/barering/Cargo.* bench/barering/pyproject.toml)

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images of containers set it. Each of thousands of programs would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-rust test-python test-oldest quick check lint types docs bench build wheel format lock proto clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

demo: build ## Run the examples as separate programs on an embedded node
	$(BIN)/python examples/demo.py

test: test-rust test-python test-oldest ## Run all tests

# A library for Python links only within it. Clippy compiles the examples; comments have none that could run, which a test holds.
test-rust: $(VENV)/.locked ## Run the Rust tests and the loom models of the ring
	cargo test --locked --workspace --exclude ouroboros-python --lib --bins --tests
	RUSTFLAGS="--cfg loom" cargo test --locked -p ouroboros-shm --release --target-dir target/loom --test loom

test-python: build ## Run the Python tests
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

# The oldest versions of our dependencies that pyproject.toml allows.
test-oldest: build $(OLDEST)/.locked
	PYTHONPATH=src $(OLDEST)/bin/python -m pytest -n $(JOBS) tests/unit

check: lint types docs ## Check formatting, lint, types, import rules, documentation

quick: $(VENV)/.locked ## Check what needs no build: formatting, lint, types, import rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/mypy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p ouroboros-python --no-default-features -- -D warnings

lint: quick
	$(BIN)/cargo-deny --log-level error check bans licenses sources
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

types: build
	$(BIN)/python -m mypy.stubtest ouroboros.dataplane._engine --mypy-config-file pyproject.toml

docs: build ## Build the documentation and run its examples
	$(BIN)/sphinx-build -q -W -n --keep-going -b html docs docs/_build/html
	$(BIN)/sphinx-build -q -W --keep-going -b doctest docs docs/_build/doctest

bench: build $(VENV)/.barering ## Measure, beside other transports, in one run
	$(BIN)/python -m bench

# The bare ring that the benchmark compares with.
$(VENV)/.barering: $(VENV)/.locked $(BARERING)
	$(BIN)/maturin develop --release --locked -m bench/barering/Cargo.toml
	@touch $@

build: $(ENGINE) $(CDEV) ## Set up .venv, build the engine and the C libraries

wheel: export PATH := $(CURDIR)/$(BIN):$(PATH)
wheel: build ## Make a wheel in dist, with the C libraries, for systems with glibc 2.28 or later
	rm -f dist/*.whl
	$(BIN)/python build_backend.py --wheel dist

$(ENGINE): $(VENV)/.locked $(RUST) pyproject.toml
	$(BIN)/maturin develop --release --locked
	@touch $@

# What `ouroboros cdev` installs.
$(CDEV): $(VENV)/.locked $(RUST) build_backend.py
	$(BIN)/python build_backend.py
	@touch $@

# pip never changes what the lock has settled: by the time maturin installs the package, its dependencies are there.
$(VENV)/.locked: requirements/dev.lock | $(BIN)/pip
	$(BIN)/pip install --quiet --require-hashes -r $<
	@touch $@

$(OLDEST)/.locked: requirements/oldest.lock | $(BIN)/pip
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --require-hashes -r $<
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# Reached only when the file is missing.
Cargo.lock:
	cargo generate-lockfile

format: $(VENV)/.locked ## Format the sources and apply the safe fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	cargo fmt --all

lock: $(BIN)/pip ## Bring both lock files up to date with pyproject.toml and Cargo.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra dev --extra docs --extra bench --custom-compile-command "make lock" \
		--output-file requirements/dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--resolution lowest-direct --custom-compile-command "make lock" \
		--output-file requirements/oldest.lock pyproject.toml requirements/oldest.in
	cargo update --workspace

proto: $(VENV)/.locked ## Compile the messages between members of unicast layers
	$(BIN)/python -m grpc_tools.protoc --proto_path=src --descriptor_set_out=$(MESSAGES).binpb $(MESSAGES).proto

clean: ## Remove everything that make has made, measurements excepted
	rm -rf $(VENV) target bench/barering/target dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache $(ENGINE) $(dir $(CDEV))
	find src tests bench examples docs fuzz -name __pycache__ -type d -prune -exec rm -rf {} +
