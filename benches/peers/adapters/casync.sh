# Chunks and compresses, one file a chunk; one thread.
here() { command -v casync; }
version() { casync --version | head -n 1; }
setup() { mkdir -p "$1/chunks.castr"; }
ingest() { casync make --with=unix --compression=zstd --store="$1/chunks.castr" "$1/$3.caidx" "$2"; }
restore() { mkdir -p "$3"; casync extract --store="$1/chunks.castr" "$1/$2.caidx" "$3"; }
