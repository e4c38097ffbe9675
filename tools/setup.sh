#!/usr/bin/env bash
# Installs the system packages that building depot needs; with the argument `tests`, also the
# programs its tests talk to. Does nothing, at once, where all are installed.
set -euo pipefail

# clang: clang++ compiles RocksDB, and brings the libclang that its Rust bindings are made with.
build_packages=(build-essential ca-certificates clang git make pkg-config python3)
# curl speaks HTTP/1.1 and HTTP/2 to the servers under test; tar and zstd make and read bundles.
# libfaketime sets the clocks of single processes. apt-utils and xz-utils make Debian archives; rpm and
# createrepo-c make RPM repositories; dnf installs from ours; python3-rpm says how versions compare;
# debootstrap makes a Debian system that is scanned; gnupg and gpgv hold our signatures to theirs;
# iproute2 makes networks of their own; python3-zeep is a strict client of our SOAP; python3-venv keeps
# moto, an S3 server that no system packages, apart from the system's Python; postgresql is the server
# that a site database may be on.
test_packages=(apt-utils createrepo-c curl debian-archive-keyring debootstrap dnf gnupg gpgv
    iproute2 libfaketime postgresql python3-rpm python3-venv python3-zeep rpm tar xz-utils zstd)

fail() {
    echo "setup: $*" >&2
    exit 1
}

case "$*" in
    "") wanted=("${build_packages[@]}") ;;
    tests) wanted=("${build_packages[@]}" "${test_packages[@]}") ;;
    *) fail "usage: tools/setup.sh [tests]" ;;
esac

command -v cargo >/dev/null ||
    fail "no cargo here: install the stable Rust toolchain with rustup, then run this again"

if ! command -v apt-get >/dev/null; then
    # Another system names its packages otherwise; a missing one shows itself in the build.
    echo "setup: no apt here; see that these are installed: ${wanted[*]}" >&2
    exit 0
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) || true
    [ "$status" = installed ] || missing+=("$package")
done

# The S3 server of the tests, in a Python environment of its own in the user's cache. Tests that
# want it say so and end where it could not be had.
moto_version=5.2.5
install_moto() {
    local place=${XDG_CACHE_HOME:-$HOME/.cache}/depot/moto
    [ "$(cat "$place/depot-version" 2>/dev/null)" != "$moto_version" ] || return 0
    echo "setup: installing moto $moto_version in $place"
    rm -rf "$place"
    if python3 -m venv "$place" && "$place/bin/pip" install -q "moto[server]==$moto_version"; then
        echo "$moto_version" >"$place/depot-version"
    else
        echo "setup: moto could not be installed; the tests over S3 will be skipped" >&2
        rm -rf "$place"
    fi
}

finish() {
    [ "$*" != tests ] || install_moto
    exit 0
}

[ ${#missing[@]} -gt 0 ] || finish "$@"

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
        fail "these packages are missing: ${missing[*]}; installing them needs root or sudo"
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Shows apt's own words only when it fails. The lock and the network are given a second chance.
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "apt-get $1 failed; missing packages: ${missing[*]}"
    }
}

echo "setup: installing ${missing[*]}"
apt update
apt install --yes --no-install-recommends "${missing[@]}"
finish "$@"
