#!/bin/bash
# What it costs to take a series of versions in, again, and to write one back.
#   ingest.sh [-r ROUNDS] [-n VERSIONS] SERIES PEER...
# SERIES is a folder of v01, v02, ... below $CORPORA, such as real/unpacked. Peers take turns, a round each;
# PEER:1 takes part in the first round alone, which is enough where only its stored bytes count.
# Sources are read once beforehand, so they come from memory. Nothing is synced within the time but by the peer itself.
# Writes $OUT/ingest.tsv: series peer round step source_bytes wall_s cpu_s rss_mib stored_bytes other_cpu_s exit
# STEPS leaves out steps that it does not name (next reread again restore).
set -uo pipefail
. "$(dirname "$0")/lib.sh"

rounds=3 versions=4
while getopts r:n: option; do case $option in r) rounds=$OPTARG ;; n) versions=$OPTARG ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
series=$1; shift
mapfile -t trees < <(find "$CORPORA/$series" -mindepth 1 -maxdepth 1 -name 'v??' | sort | head -n "$versions")
((${#trees[@]})) || { note "no versions in $CORPORA/$series: run corpora.py"; exit 1; }
newest=${trees[-1]}

find "${trees[@]}" -type f -exec cat {} + >/dev/null

wants() { [[ " ${STEPS-next reread again restore} " == *" $1 "* ]]; }

one_round() { # peer round
  local name=$1 round=$2 store=$WORK/store-$1 back=$WORK/back-$1 tree label
  step() { # name tree function args...
    timed "$name" "${@:3}"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$series" "$name" "$round" "$1" "$(bytes_in "$2")" \
      "$wall" "$cpu" "$rss" "$(bytes_in "$store")" "$other" "$rc" | tee -a "$OUT/ingest.tsv"
  }
  rm -rf "$store" "$store.side" "$back"
  wait_for_quiet
  peer "$name" setup "$store" >/dev/null 2>&1
  for tree in "${trees[@]}"; do
    label=${tree##*/}
    if [[ $tree == "${trees[0]}" ]]; then step first "$tree" ingest "$store" "$tree" "$label"
    elif wants next; then step "$label" "$tree" ingest "$store" "$tree" "$label"; fi
  done
  if wants again; then step again "$newest" ingest "$store" "$newest" again; fi
  if wants reread && peer_can "$name" reread; then step reread "$newest" reread "$store" "$newest" reread; fi
  if wants restore && peer_can "$name" restore; then
    step restore "$newest" restore "$store" "${newest##*/}" "$back"
    # A fast restore of something else would be no figure at all.
    if [[ $round == 1 ]] && ! diff -rq --no-dereference "$newest" "$back" >"$WORK/diff.log" 2>&1; then
      note "$name: what came back differs from $newest:"; head -n 3 "$WORK/diff.log" >&2
      printf '%s\t%s\t%s\tdiffers\t0\t0\t0\t0\t0\t0\t1\n' "$series" "$name" "$round" >>"$OUT/ingest.tsv"
    fi
  fi
  rm -rf "$store" "$store.side" "$back"
}

for ((round = 1; round <= rounds; round++)); do
  for spec in "$@"; do
    name=${spec%:1}
    [[ $spec == *:1 && $round != 1 ]] && continue
    if peer "$name" here >/dev/null 2>&1; then one_round "$name" "$round"; else note "not here: $name"; fi
  done
done
