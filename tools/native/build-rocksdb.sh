#!/usr/bin/env bash
# Compiles RocksDB's C++ once a machine, and links it where cargo looks for it.
#
# Left alone, the rocksdb crate compiles 343 C++ files in every profile of every checkout: a
# quarter of an hour each time, most of it the same headers again. Here the same files, from the
# same crate that Cargo.lock names, are compiled in groups (a unity build) in about three minutes,
# and kept outside the tree, so that `make clean` or a second checkout costs nothing.
#
# Always true of the cache:
# * a folder is named by all that decides its bytes, and holds a whole archive or does not exist;
# * a folder never changes once it is there, so it may be copied between machines or deleted.
#
# Result: target/native/rocksdb, a link to that folder; .cargo/config.toml names it.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=$(realpath -m "${DEPOT_NATIVE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/depot}")
link=target/native/rocksdb

# Files per unit: fewer units parse fewer headers; too few leave cores idle at the end.
unit_size=24

flags=(-O2 -std=c++20 -include cstdint -fPIC -ffunction-sections -fdata-sections -w)
# Hardware CRC32C, which the crate leaves out unless RUSTFLAGS name a CPU; every x86-64 server
# since 2011 has both.
[ "$(uname -m)" != x86_64 ] || flags+=(-msse4.2 -mpclmul)

# As the crate's build.rs sets them for Linux with the features `lz4` and `zstd`. Bindings and
# archive must agree, so a new version of the crate means reading its build.rs again.
defines=(
    -DNDEBUG=1 -DLZ4=1 -DZSTD=1 -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
    -DROCKSDB_RANGESYNC_PRESENT -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
)

fail() {
    echo "build-rocksdb: $*" >&2
    exit 1
}

# Name, version and checksum of the three crates whose sources go into the archive. Read from the
# lock file itself, because this runs before every build and `cargo metadata` takes a second.
locked_sources() {
    awk -F'"' '
        /^name = /     { name = $2 }
        /^version = /  { version = $2 }
        /^checksum = / && name ~ /^(librocksdb|lz4|zstd)-sys$/ { print name, version, $2 }
    ' Cargo.lock
}

# The unpacked folder of each of the three, one a line, in the order of the arguments. `--locked`
# also downloads what is missing.
source_folders() {
    cargo metadata --locked --format-version 1 | python3 -c '
import json, os, sys
folders = {p["name"]: os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"]}
for name in sys.argv[1:]:
    print(folders[name])
' "$@"
}

# Leaves librocksdb.a in folder $1, which must be empty and ours alone.
compile_into() {
    local out=$1 folders rocksdb lz4 zstd
    folders=$(source_folders librocksdb-sys lz4-sys zstd-sys)
    { read -r rocksdb && read -r lz4 && read -r zstd; } <<<"$folders"
    # The crate replaces RocksDB's generated build_version.cc by its own.
    sed -E "/^$/d; /^util\/build_version\.cc$/d; s|.*|#include \"$rocksdb/rocksdb/&\"|" \
        "$rocksdb/rocksdb_lib_sources.txt" |
        split -d -l "$unit_size" --additional-suffix=.cc - "$out/unit"
    printf '#include "%s/build_version.cc"\n' "$rocksdb" >"$out/version.cc"
    find "$out" -name '*.cc' -print0 | sort -z |
        xargs -0 -P "$(nproc)" -I{} clang++ "${flags[@]}" "${defines[@]}" \
            -I"$rocksdb/rocksdb/include" -I"$rocksdb/rocksdb" -I"$rocksdb" \
            -I"$lz4/liblz4/lib" -I"$zstd/zstd/lib" -c {} -o {}.o
    ar crs "$out/librocksdb.a" "$out"/*.o
    rm "$out"/*.cc "$out"/*.o
}

[ "$(uname -s)" = Linux ] || fail "only Linux is supported"
[ -f Cargo.lock ] || fail "no Cargo.lock here; it says which RocksDB to build"
[ "$(locked_sources | wc -l)" = 3 ] ||
    fail "Cargo.lock should name librocksdb-sys, lz4-sys and zstd-sys once each"
command -v clang++ >/dev/null || fail "no clang++ here; tools/setup.sh installs it"

# All that decides the archive's bytes; `declare -f` leaves comments out, so that rewording one
# does not cost everybody a rebuild.
key=$({
    locked_sources
    clang++ --version | head -n 1
    uname -m
    echo "${flags[@]}" "${defines[@]}" "$unit_size"
    declare -f source_folders compile_into
} | sha256sum | cut -c1-16)
kept=$cache/rocksdb-$key

if [ ! -f "$kept/librocksdb.a" ]; then
    mkdir -p "$cache"
    # One build at a time: a second caller waits here and then finds the work done.
    exec 9>"$cache/lock"
    flock 9
    if [ ! -f "$kept/librocksdb.a" ]; then
        # Whoever left such a folder died; the lock says that nobody is using it.
        rm -rf "$cache"/building.*
        building=$(mktemp -d "$cache/building.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        echo "build-rocksdb: compiling RocksDB, once a machine; about three minutes on two cores"
        SECONDS=0
        compile_into "$building"
        chmod 755 "$building"
        mv -T "$building" "$kept"
        echo "build-rocksdb: done in $SECONDS s, kept in $kept"
    fi
    exec 9>&-
fi

if [ "$(readlink "$link" 2>/dev/null)" != "$kept" ]; then
    mkdir -p "$(dirname "$link")"
    ln -sfn "$kept" "$link.$$"
    # A rename replaces the link at once: a cargo build beside this one sees the old or the new.
    mv -T "$link.$$" "$link"
fi
