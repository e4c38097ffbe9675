#!/usr/bin/env bash
# Runs each fuzz target for $1 seconds; stops at the first that finds something.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

[ -f fuzz/Cargo.toml ] || fail "no fuzz/Cargo.toml in this tree"
command -v cargo-fuzz >/dev/null || fail "cargo-fuzz is missing: cargo install cargo-fuzz"
# Asked this way because naming a missing toolchain to cargo may make rustup download it.
rustup toolchain list 2>/dev/null | grep -q '^nightly' ||
    fail "libFuzzer's instrumentation needs a nightly compiler: rustup toolchain install nightly"

for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target for $1 s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$1"
done
