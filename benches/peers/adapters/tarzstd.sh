# Yardstick: compression by both cores, no dedup, an archive a version.
here() { command -v zstd; }
version() { zstd --version | sed 's/.*\(v[0-9.]*\).*/zstd \1/'; }
setup() { mkdir -p "$1"; }
ingest() { tar -C "$2" -cf - . | zstd -q -f -3 -T2 -o "$1/$3.tar.zst"; }
restore() { mkdir -p "$3"; zstd -q -dc "$1/$2.tar.zst" | tar -C "$3" -xf -; }
