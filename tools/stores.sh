#!/usr/bin/env bash
# Installs the object stores that tests/stores.rs talks to, in this user's cache: Garage (compiled,
# some ten minutes) and Azurite (from the npm registry). Does nothing where they are.
set -euo pipefail

garage_version=2.5.0
azurite_version=3.35.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/depot
mkdir -p "$cache"

if [ "$(cat "$cache/garage/depot-version" 2>/dev/null)" != "$garage_version" ]; then
    echo "stores: compiling Garage $garage_version in $cache/garage"
    rm -rf "$cache/garage"
    # Its own target folder: its features must not decide how our crates are compiled.
    CARGO_TARGET_DIR=$cache/garage/build cargo install garage --version "$garage_version" --locked \
        --no-default-features --features sqlite,bundled-libs --root "$cache/garage"
    rm -rf "$cache/garage/build"
    echo "$garage_version" >"$cache/garage/depot-version"
fi

if [ "$(cat "$cache/azurite/depot-version" 2>/dev/null)" != "$azurite_version" ]; then
    if ! command -v npm >/dev/null; then
        as_root=()
        [ "$(id -u)" = 0 ] || as_root=(sudo)
        "${as_root[@]}" apt-get -qq install --yes --no-install-recommends nodejs npm
    fi
    echo "stores: installing Azurite $azurite_version in $cache/azurite"
    rm -rf "$cache/azurite"
    npm install --silent --no-audit --no-fund --prefix "$cache/azurite" "azurite@$azurite_version"
    echo "$azurite_version" >"$cache/azurite/depot-version"
fi
