# What people and machines run. Each target works in a fresh clone, or says what it lacks.

# One folder for every cargo call, the fuzz workspace's too, so that nothing is compiled twice.
export CARGO_TARGET_DIR ?= target
# A machine must never change the lock file; a person who adds a dependency has to.
LOCKED := $(if $(CI),--locked)
FUZZ_SECONDS ?= 60

# Cargo uses every core by itself; two calls at once would only wait for each other's lock.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests native build run test test-stores lint bench fuzz clean
.PHONY: fmt-check check-deps clippy docs check-fuzz deny cargo-test

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## install the system packages a build needs, by apt, where missing
	@tools/setup.sh

native: setup ## compile RocksDB, once a machine
	@tools/native/build-rocksdb.sh

build: native ## compile target/release/depot
	cargo build --release $(LOCKED)

run: build ## serve from ./depot-data
	$(CARGO_TARGET_DIR)/release/depot serve --data ./depot-data

test: setup-tests lint cargo-test ## all that a change must pass

# In the order of cost, so that a slip shows within seconds.
lint: native fmt-check check-deps deny clippy docs check-fuzz ## all of `test` but the tests

test-stores: setup-tests ## test over Garage and Azurite too (compiles Garage: ten minutes, once)
	@tools/stores.sh
	cargo test --test stores $(LOCKED) -- --ignored

bench: build ## measure against peers
	@benches/peers/run.sh

fuzz: native ## run each fuzz target for FUZZ_SECONDS (60)
	@tools/fuzz.sh $(FUZZ_SECONDS)

clean: ## delete what cargo made; RocksDB stays in the machine's cache
	cargo clean

# The parts of `test`. Two compilations serve them all, both in the dev profile: one that only
# checks (clippy, docs, fuzz targets) and one that makes code (tests, and the binary they start).

setup-tests:
	@tools/setup.sh tests

fmt-check:
	cargo fmt --all --check

check-deps:
	tools/check-deps.py

deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	else echo "deny: cargo-deny is not installed, so licences are not checked"; fi

# All targets: this is also what keeps the benches compiling.
clippy:
	cargo clippy --workspace --all-targets $(LOCKED) -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(LOCKED)

# Checking needs no nightly compiler; running does (`make fuzz`).
check-fuzz:
	cargo check --manifest-path fuzz/Cargo.toml --bins $(LOCKED)

cargo-test:
	cargo test --workspace --no-fail-fast $(LOCKED)
