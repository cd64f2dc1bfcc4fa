# The verbs of the project; `make help` tells what each does.

PYTHON ?= python3
BIN := .venv/bin
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

# Where pip and cargo put their things, so that nothing outside the clone is touched.
export VIRTUAL_ENV := $(CURDIR)/.venv
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench wheel clean

help: ## Print this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

# Installed once, and again only when the dependencies change.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fusewire needs Python 3.11 or newer; make PYTHON=/path/to/python3.11 uses that one" >&2; exit 2; }
	@command -v cargo >/dev/null || \
		{ echo "fusewire needs a Rust toolchain: https://rustup.rs installs one" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# Built again only when the Rust sources change; the Python sources are used in place.
.venv/built: .venv/installed $(RUST_SOURCES)
	$(BIN)/maturin develop --release --extras torch,train
	@touch $@

setup: .venv/built ## Create .venv, install the dependencies and build the extension

demo: setup ## Train a GAN and two language models on the embedded samples
	$(BIN)/fusewire demo

# Properties are tried on the same examples every time; without the seeds, on new ones.
test: setup ## Run all tests, Rust and Python
	PROPTEST_RNG_SEED=1 cargo test --workspace --exclude fusewire-bindings
	$(BIN)/python -m pytest --hypothesis-seed=1

check: setup ## Check formatting, lints, types and the extension's stub
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fusewire._native

bench: setup ## Measure the operators beside their rivals, and the machine's peak beside both
	cargo bench -p fusewire-kernels
	$(BIN)/python -m pytest benches --benchmark-only --benchmark-columns=median,iqr,rounds

wheel: setup ## Build a wheel into dist/
	$(BIN)/maturin build --release --out dist

clean: ## Remove everything that the other verbs made, but for runs/
	rm -rf .venv target dist
