#!/bin/bash
# Bounds that depot keeps by itself, with no peer: opening a library of a million contents that is not in memory,
# and the memory that one very large file takes. Needs about 10 GB in $BULK.
# Writes $OUT/bounds.tsv: name value
set -uo pipefail
. "$(dirname "$0")/lib.sh"

port=${PORT:-18190}
peer depot here || { note "not here: depot"; exit 0; }
rm -rf "$BULK" "$WORK/many" "$WORK"/many-*; mkdir -p "$BULK"
trap 'rm -rf "$BULK"' EXIT
bound() { printf '%s\t%s\n' "$@" | tee -a "$OUT/bounds.tsv"; }

python3 -c 'import random, sys
rng = random.Random(1)
for _ in range(int(sys.argv[1])): sys.stdout.buffer.write(rng.randbytes(1 << 20))' "${LARGE_MIB:-4096}" >"$BULK/large.part"
mkdir "$BULK/large"; mv "$BULK/large.part" "$BULK/large/blob"
peer depot setup "$BULK/store"
timed depot ingest "$BULK/store" "$BULK/large" large
[[ $rc == 0 ]] && bound rss_4gib_file_mib "$rss" && bound ingest_4gib_file_s "$wall"
rm -rf "$BULK/large" "$BULK/store" "$BULK/store.side"

# A package of its own for each hundred thousand, so that the files need not all be there at once.
library=$BULK/library; mkdir "$library"
trees=${TREES:-10} wanted=()
for ((t = 0; t < trees; t++)); do
  python3 -c 'import os, sys
for n in range(int(sys.argv[3])):
    if n % 1000 == 0: os.makedirs(f"{sys.argv[1]}/{n // 1000:02}")
    with open(f"{sys.argv[1]}/{n // 1000:02}/{n:05}", "w") as file: file.write(f"content {n} of {sys.argv[2]}\n")' "$WORK/many" "$t" "${TREE_FILES:-100000}"
  mv "$WORK/many" "$WORK/many-$t" # two packages may not share a source
  "$DEPOT" --data "$library" package create "p$t" --source "$WORK/many-$t" >/dev/null && "$DEPOT" --data "$library" package update "p$t" --source "$WORK/many-$t" >/dev/null ||
    { note "depot cannot take in 100 000 files"; rm -rf "$WORK"/many-*; exit 1; }
  wanted+=("$(b3sum --no-names "$WORK/many-$t/00/00500")")
  rm -rf "$WORK/many-$t"
done

# Seconds from the start of the process to the first right answer; the library's files are put out of the page cache.
opened() {
  python3 - "$DEPOT" "$library" "$port" "$1" "${wanted[@]}" <<'PY'
import http.client, os, signal, subprocess, sys, time
depot, library, port, end, *wanted = sys.argv[1:]
for folder, _, names in os.walk(library):
    for name in names:
        fd = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
began = time.monotonic()
server = subprocess.Popen([depot, "serve", "--data", library, "--listen", f"127.0.0.1:{port}"], stdout=sys.stderr)
def get(hex_digest):
    at = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    at.request("GET", "/content/blake3:" + hex_digest)
    answer = at.getresponse()
    return answer.status == 200 and answer.read().startswith(b"content ")
took = float("nan")
while time.monotonic() - began < 60 and server.poll() is None:
    try:
        ok = get(wanted[0])
    except OSError:
        ok = False
    if ok:
        took = time.monotonic() - began
        break
    time.sleep(0.005)
if took == took and not all(map(get, wanted)):
    took = float("nan")
server.send_signal(getattr(signal, end))
try:
    server.wait(30)
except subprocess.TimeoutExpired:
    server.kill()
print(f"{took:.3f}")
PY
}
wait_for_quiet
opened SIGTERM >/dev/null
bound cold_open_s "$(opened SIGKILL)"
bound cold_open_after_kill_s "$(opened SIGTERM)"

# The index made anew from the packs' footers, beside a plain read of the same bytes from the same cold disk.
cold() { find "$library/library/packs" -name '*.pack' -exec dd if={} iflag=nocache count=0 status=none \;; }
tails() {
  python3 - "$library/library/packs" <<'PY'
import os, struct, sys, time
began, total = time.monotonic(), 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as pack:
            pack.seek(-64, os.SEEK_END)
            trailer = pack.read(64)
            if trailer[:8] != b"depotend":
                continue
            offset, length = struct.unpack("<QI", trailer[8:20])
            pack.seek(offset)
            total += len(pack.read(length))
print(f"{time.monotonic() - began:.3f} {total}")
PY
}
wait_for_quiet
cold; read -r tails_s tails_bytes < <(tails)
bound pack_tails_mib "$((tails_bytes >> 20))"
bound pack_tails_read_s "$tails_s"
rm -rf "$library/library/index"; cold
began=$EPOCHREALTIME
"$DEPOT" --data "$library" library rebuild-index >"$WORK/rebuild.log" 2>&1 || { note "rebuild-index failed: $(tail -n 1 "$WORK/rebuild.log")"; exit 1; }
bound rebuild_index_s "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }')"
