# Yardstick: reads and hashes every byte on both cores, stores nothing.
here() { command -v b3sum; }
version() { b3sum --version; }
setup() { mkdir -p "$1"; }
ingest() { find "$2" -type f -print0 | xargs -0 b3sum --num-threads 2 >"$1/sums"; }
