# Latchkey's commands. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz lint deny plugins setup-demo setup-test setup-bench clean

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
PLUGINS := $(CURDIR)/plugins/built
# A toolchain installed by rustup may not be in the PATH of this shell yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## real requests through every part, explained; then it stays up. ONCE=1 stops after the walk, REDIS=1 uses Redis
	@echo "[1/4] tools"
	@REDIS=$(REDIS) deploy/setup/demo.sh
	@echo "[2/4] proxy, CertService, command (the first build takes about 6 minutes on 2 idle cores, later ones seconds)"
	@cargo build --locked --bins
	@echo "[3/4] plugins, to WebAssembly"
	@plugins/build.sh
	@echo "[4/4] demo"
	@$(TARGET)/debug/latchkey demo --plugins $(PLUGINS) $(if $(ONCE),--once) $(if $(REDIS),--redis)

test: setup-test lint plugins deny ## everything: lint, unit and end-to-end tests, licences
	cargo build --locked --workspace --bins
	plugins/build-c.sh
	cd plugins && cargo test --locked --quiet
	tests/with-mariadb.sh cargo test --locked --workspace --no-fail-fast

bench: setup-bench plugins ## beside nginx, HAProxy, Caddy, bare Pingora, and CertService; 40 minutes. QUICK=1: a few. ONLY=a,b: these parts. See bench/
	cargo build --release --locked --workspace --bins
	$(TARGET)/release/latchkey-bench $(if $(QUICK),--quick --results $(TARGET)/bench-quick) $(if $(ONLY),--only $(ONLY))

fuzz: ## look for inputs that break the readers of PROXY headers, sealed bundles and what plugins return, SECONDS=60 each; libFuzzer where nightly and cargo-fuzz are
	LATCHKEY_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --locked --workspace --test e2e -- --nocapture fuzz::any_
	LATCHKEY_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --locked --workspace --lib -- --nocapture any_value_of_a_guest
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
	  for target in proxy_header sealed_bundle; do \
	    cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=$(or $(SECONDS),60) -max_len=20000; done; \
	else echo "libFuzzer is left out: it needs rustup toolchain install nightly, cargo install cargo-fuzz"; fi

lint: ## format and clippy, warnings are errors
	cargo fmt --all --check
	cd plugins && cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd plugins && cargo clippy --locked --all-targets -- -D warnings

deny: ## licences, bans and advisories of all crates, if cargo-deny is installed
	@deploy/setup/deny.sh

plugins: ## the guests, to plugins/built/*.wasm
	plugins/build.sh

setup-demo: ## install what `make demo` needs (apt, rustup); silent when nothing is missing
	@REDIS=$(REDIS) deploy/setup/demo.sh

setup-test: ## install what `make test` needs besides
	@deploy/setup/test.sh

setup-bench: ## install what `make bench` needs besides
	@deploy/setup/bench.sh

clean: ## remove what was built here
	cargo clean
	rm -rf plugins/target plugins/built
