#!/bin/bash
# GETs by HTTP/1.1 over loopback, of random objects, on connections kept alive.
#   serve.sh [-r ROUNDS] [-d SECONDS] PEER...
# All servers run on core $SERVER_CORE throughout and take turns at each point; wrk has core $LOAD_CORE, one thread.
# POINTS is a list of SIZE:CONNECTIONS. Objects lie in $CORPORA/objects, each named after its size and number.
# Writes $OUT/serve.tsv: peer size connections round req_s mb_s p50_us p99_us cpu_s_per_gb cpu_us_per_req rss_mib errors other_cpu_s
set -uo pipefail
. "$(dirname "$0")/lib.sh"

rounds=3 seconds=4 port=${PORT:-18100}
SERVER_CORE=${SERVER_CORE:-0} LOAD_CORE=${LOAD_CORE:-1}
while getopts r:d: option; do case $option in r) rounds=$OPTARG ;; d) seconds=$OPTARG ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
POINTS=${POINTS:-1024:1 1024:64 1024:1000 16384:1 16384:64 16384:1000 1048576:1 1048576:64 1048576:1000 268435456:1 268435456:64}
objects=$CORPORA/objects
ulimit -n "$(ulimit -Hn)"
export no_proxy=127.0.0.1 # curl would ask it for our own servers too

declare -A session base
stop_all() { local s; for s in "${session[@]}"; do kill -- "-$s" 2>/dev/null; done; wait 2>/dev/null; }
trap stop_all EXIT

find "$objects" -type f -exec b3sum {} + | awk -v where="$WORK" '{
  n = split($2, part, "-"); print "/content/blake3:" $1 >(where "/paths-" part[n - 1]) }'

members() { ps -o pid= -s "${session[$1]}"; }
cpu_ticks() { local p; for p in $(members "$1"); do sed 's/.*) //' "/proc/$p/stat"; done 2>/dev/null | awk '{ n += $12 + $13 } END { print n + 0 }'; }
peak_rss_mib() { local p; for p in $(members "$1"); do grep -h ^VmHWM: "/proc/$p/status"; done 2>/dev/null | awk '{ n += $2 } END { printf "%.0f", n / 1024 }'; }
load() { # peer paths connections seconds seed
  taskset -c "$LOAD_CORE" wrk -t1 -c"$3" -d"$4s" --timeout 20s -s "$PEERS_DIR/serve.lua" "${base[$1]}" -- "$2" "$5" 2>&1
}

running=()
for name in "$@"; do
  peer "$name" here >/dev/null 2>&1 || { note "not here: $name"; continue; }
  store=$WORK/serve-$name
  rm -rf "$store" "$store.side"; mkdir -p "$store"
  peer "$name" stage "$store" "$objects" >"$WORK/$name.log" 2>&1 || { note "$name cannot lay its objects out:"; tail -n 5 "$WORK/$name.log" >&2; continue; }
  port=$((port + 1)) base[$name]=http://127.0.0.1:$port
  setsid taskset -c "$SERVER_CORE" bash -c '. "$1"; serve "$2" "$3"' "$name" "$PEERS_DIR/adapters/$name.sh" "$store" "$port" \
    >"$WORK/$name.log" 2>&1 </dev/null &
  session[$name]=$!
  for _ in {1..200}; do curl -s -o /dev/null "${base[$name]}/" && break; sleep 0.05; done
  wrong=0
  for size in $(tr ' ' '\n' <<<"$POINTS" | cut -d: -f1 | sort -un); do
    path=$(head -n 1 "$WORK/paths-$size")
    [[ $(curl -s "${base[$name]}$path" | b3sum --no-names) == "${path##*:}" ]] || { note "$name: wrong bytes for $path"; wrong=1; }
  done
  if ((wrong)); then printf '%s\twrong bytes\n' "$name" >>"$OUT/serve-wrong.tsv"; else running+=("$name"); fi
done

for point in $POINTS; do
  size=${point%:*} connections=${point#*:}
  wait_for_quiet
  for ((round = 0; round <= rounds; round++)); do
    for name in "${running[@]}"; do
      if ((round == 0)); then load "$name" "$WORK/paths-$size" "$connections" 1 0 >/dev/null; continue; fi # warms up
      cpu_was=$(cpu_ticks "$name") busy_was=$(busy_ticks) load_was=$(cut -d' ' -f16,17 /proc/$$/stat)
      result=$(load "$name" "$WORK/paths-$size" "$connections" "$seconds" "$round" | grep ^MEASURED)
      cpu=$(($(cpu_ticks "$name") - cpu_was)) busy=$(($(busy_ticks) - busy_was)) load_now=$(cut -d' ' -f16,17 /proc/$$/stat)
      read -r _ requests us bytes p50 p99 errors <<<"${result:-MEASURED 0 1 0 0 0 1}"
      awk -v OFS='\t' -v r="$requests" -v us="$us" -v b="$bytes" -v cpu="$cpu" -v busy="$busy" -v l="$load_was $load_now" -v hz="$(getconf CLK_TCK)" \
        -v at="$name	$size	$connections	$round" -v lat="$p50	$p99" -v mem="$(peak_rss_mib "$name")" -v e="$errors" 'BEGIN {
          split(l, t, " "); s = cpu / hz; other = (busy - cpu - (t[3] + t[4] - t[1] - t[2])) / hz
          printf "%s\t%.1f\t%.1f\t%s\t%.4f\t%.2f\t%s\t%s\t%.2f\n", at, r / us * 1e6, b / us, lat, b ? s / b * 1e9 : 0, r ? s / r * 1e6 : 0, mem, e, (other > 0 ? other : 0) }' |
        tee -a "$OUT/serve.tsv"
    done
  done
done
stop_all; trap - EXIT
rm -rf "$WORK"/serve-* "$WORK"/paths-*
