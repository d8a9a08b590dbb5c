# One command for each thing that users and developers do; `make help` lists them.
#
# All that is built goes into .venv, engine/target and disco/_engine*.so. What is up to date is not done
# again and says nothing, and needs no network. pyproject.toml and engine/Cargo.lock name the versions.

PYTHON ?= python3
INSTALL ?= 0
VENV := .venv
BIN := $(VENV)/bin
MANIFEST := --manifest-path engine/Cargo.toml

# Stamps: when it was done.
TOOLS := $(VENV)/.tools
BUILT := $(VENV)/.built
ENGINE_SOURCES := $(shell find engine -name target -prune -o \( -name '*.rs' -o -name 'Cargo.*' \) -print)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint format bench bench-quick fuzz clean

help:
	@echo 'make setup       build everything into $(VENV); then $(BIN)/disco works'
	@echo 'make demo        four Debian VMs at work, and what it cost'
	@echo 'make test        the whole test suite; make test-fast leaves out what boots Debian'
	@echo 'make lint        formatting, lints and types of Rust and Python; make format mends formatting'
	@echo 'make bench       how fast guests run, beside QEMU; make bench-quick does less work'
	@echo 'make fuzz        translator against interpreter and interpreter against Unicorn, for SECONDS=3600 each'
	@echo 'make clean       remove what was built'

setup: $(BUILT)
	@:

demo: $(BUILT)
	@$(BIN)/disco demo

test: $(BUILT)
	cargo test --profile tests $(MANIFEST) --workspace
	$(BIN)/python -m pytest

test-fast: $(BUILT)
	cargo test --profile tests $(MANIFEST) --workspace
	$(BIN)/python -m pytest -m 'not slow'

lint: $(BUILT)
	cargo fmt $(MANIFEST) --all --check
	cargo clippy --profile tests $(MANIFEST) --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/stubtest disco._engine

format:
	cargo fmt $(MANIFEST) --all
	$(BIN)/ruff format

bench: $(BUILT)
	@$(BIN)/python bench/run.py

bench-quick: $(BUILT)
	@$(BIN)/python bench/run.py --quick --runs 1

SECONDS ?= 3600
fuzz: $(BUILT)
	DIFFERENTIAL_SECONDS=$(SECONDS) cargo test --profile tests $(MANIFEST) -p disco-translate --test differential -- --nocapture
	DISCO_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/isa/test_random_streams.py

clean:
	rm -rf $(VENV) engine/target disco/_engine*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(TOOLS): scripts/check-host
	@INSTALL=$(INSTALL) scripts/check-host $(PYTHON)
	@echo 'setup: virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'maturin>=1.14,<2'
	@touch $@

# Python sources are used where they lie, so only a change of the engine or of the dependencies counts.
$(BUILT): $(TOOLS) pyproject.toml $(ENGINE_SOURCES)
	@echo 'setup: compiling the engine and fetching libraries (some minutes the first time)'
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_QUIET=1 $(BIN)/maturin develop --release --quiet --extras dev
	@$(BIN)/python -m compileall -q disco
	@touch $@
