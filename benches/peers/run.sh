#!/bin/bash
# Everything that benches/RESULTS.md shows, in one run: `make bench` comes here.
#   run.sh [ingest] [serve] [bounds]     (all of them if none is named)
# CORPORA, WORK, BULK, OUT and DEPOT are as in lib.sh; ROUNDS (default 3) is for each peer. About half an hour on two cores.
# Nothing else should run meanwhile; QUIET_S (default 20) is how long each round waits for that.
set -euo pipefail
export QUIET_S=${QUIET_S:-20}
. "$(dirname "$0")/lib.sh"
cd "$PEERS_DIR"
parts=${*:-ingest serve bounds} rounds=${ROUNDS:-3}
for part in $parts; do
  [[ $part == ingest || $part == serve || $part == bounds ]] || { note "no part $part: ingest, serve or bounds"; exit 2; }
done
results=${RESULTS:-$PEERS_DIR/../RESULTS.md}

packages=(restic borgbackup casync nginx-light wrk b3sum zstd curl procps)
# These fetch the corpora, and may have come from elsewhere than Debian.
command -v npm >/dev/null || packages+=(npm)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  as_root apt-get update -q && as_root apt-get install -y --no-install-recommends "${packages[@]}" || note "some peers are missing; their goals are not measured"
fi
if ! command -v bupstash >/dev/null; then
  # Its lock file: with newer dependencies it does not build.
  as_root apt-get install -y --no-install-recommends libsodium-dev pkg-config &&
    CARGO_TARGET_DIR=$WORK/bupstash-build nice cargo install --locked bupstash || note "bupstash is missing; its goals are not measured"
  rm -rf "$WORK/bupstash-build"
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
fi
if [[ ! -x $DEPOT ]]; then (cd ../.. && cargo build --release); fi
python3 corpora.py "$CORPORA"

rm -f "$OUT"/*.tsv
if [[ " $parts " == *" ingest "* ]]; then
  ./ingest.sh -r "$rounds" real/unpacked depot bupstash tarzstd b3sum restic borg:1 casync:1 cp:1
  STEPS='' ./ingest.sh -r "$rounds" -n 1 real/packed depot bupstash tarzstd
  # On a disk, where a copy that is synced means something.
  WORK=$BULK STEPS='reread restore' ./ingest.sh -r "$rounds" -n 1 big depot cp b3sum
  rm -rf "$BULK"
  ./ingest.sh -r "$rounds" -n 2 small depot bupstash restic:1
  STEPS='' ./ingest.sh -r 1 -n 1 small casync
fi
[[ " $parts " != *" serve "* ]] || ./serve.sh -r "$rounds" nginx depot
[[ " $parts " != *" bounds "* ]] || ./bounds.sh || note "the bounds are not all measured"

report=$(python3 report.py "$OUT")
{
  printf '\n## %s\n\n' "$(date -u '+%Y-%m-%d %H:%M') UTC, $(git rev-parse --short HEAD 2>/dev/null || echo 'not committed')"
  printf 'Machine: %s cores of %s, %s GiB, Linux %s; corpora on %s, stores on %s, those of big and the bounds on %s; %s rounds.\n' "$(nproc)" \
    "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)" "$(uname -r)" \
    "$(stat -f -c %T "$CORPORA")" "$(stat -f -c %T "$WORK")" "$(stat -f -c %T "$(dirname "$BULK")")" "$rounds"
  printf 'Peers: '
  for file in adapters/*.sh; do
    name=$(basename "$file" .sh)
    ! peer "$name" here >/dev/null 2>&1 || printf '%s; ' "$(peer "$name" version 2>/dev/null)"
  done
  printf '%s.\n\n%s\n' "$(wrk -v 2>&1 | grep -o '^wrk [^ ]*')" "$report"
} >>"$results"
printf '%s\n' "$report"
note "appended to $results; the rows are in $OUT"
