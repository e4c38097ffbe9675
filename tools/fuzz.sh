#!/usr/bin/env bash
# Runs each fuzz target for $1 seconds; stops at the first that finds something.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "usage: tools/fuzz.sh SECONDS"
command -v cargo-fuzz >/dev/null || fail "cargo-fuzz is missing: cargo install cargo-fuzz"
# Asked this way because naming a missing toolchain to cargo may make rustup download it.
rustup toolchain list 2>/dev/null | grep -q '^nightly' ||
    fail "libFuzzer's instrumentation needs a nightly compiler: rustup toolchain install nightly"

# By itself: `set -e` does not see a failure inside the words of a loop.
targets=$(cargo +nightly fuzz list)
for target in $targets; do
    echo "fuzz: $target for $1 s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$1"
done
