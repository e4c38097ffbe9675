# Shared by the scripts of this folder; sourced, never run.
#
# A peer is one file in adapters/. It defines, each on its own and none of them required but `here`:
#   here                      true if the program is installed
#   version                   one line
#   setup STORE               makes an empty store; not timed
#   ingest STORE TREE LABEL   takes a tree in as the next version
#   reread STORE TREE LABEL   the same for a tree already held, reading every byte again
#   restore STORE LABEL DEST  writes a version back
#   stage STORE OBJECTS       lays objects out for serving, named by digest; not timed
#   serve STORE PORT          serves /content/blake3:<hex> on 127.0.0.1; does not return
# What a peer keeps outside its store (keys, caches) lies in STORE.side, and does not count as stored.

PEERS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CORPORA=${CORPORA:-${XDG_CACHE_HOME:-$HOME/.cache}/depot-bench/corpora}
export WORK=${WORK:-${TMPDIR:-/var/tmp}/depot-bench} # stores; emptied again
export OUT=${OUT:-$WORK/out}                         # measurements, tab-separated
export DEPOT=${DEPOT:-$(cd "$PEERS_DIR/../.." && realpath -m "${CARGO_TARGET_DIR:-target}")/release/depot}
# A folder of its own in one that should be on a real disk, with 10 GB free; deleted again.
BULK=${BULK:-/var/tmp}
[[ $BULK == */depot-bench-bulk ]] || BULK=$BULK/depot-bench-bulk
export BULK
mkdir -p "$WORK" "$OUT"

# peer NAME FUNCTION ARGS...: one function of one adapter, in a shell of its own.
peer() { local name=$1; shift; bash -c 'set -e -o pipefail; . "$1"; shift; "$@"' "$name" "$PEERS_DIR/adapters/$name.sh" "$@"; }
peer_can() { bash -c '. "$1"; declare -F "$2"' x "$PEERS_DIR/adapters/$1.sh" "$2" >/dev/null; }
# The same under the clock; sets wall, cpu, rss (MiB), rc, and other: CPU seconds of everything else meanwhile.
timed() {
  local name=$1; shift
  read -r wall cpu rss rc other < <(python3 "$PEERS_DIR/timed.py" "$WORK/$name.log" \
    bash -c 'set -e -o pipefail; . "$1"; shift; "$@"' "$name" "$PEERS_DIR/adapters/$name.sh" "$@")
  [[ $rc == 0 ]] || { echo "$name $1: exit $rc" >&2; tail -n 5 "$WORK/$name.log" >&2; }
}
bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f\n", n }'; }
note() { printf '%s\n' "$*" >&2; }

# Waits for a second in which the machine did next to nothing, for at most QUIET_S seconds (default: no wait).
wait_for_quiet() {
  local n was now
  for ((n = 0; n < ${QUIET_S:-0}; n++)); do
    was=$(busy_ticks); sleep 1; now=$(busy_ticks)
    ((now - was > 10)) || return 0
  done
}
busy_ticks() { awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat; }
