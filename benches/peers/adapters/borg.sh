# Chunks and compresses; encryption off, zstd 3, as near as it gets to what depot does.
export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
here() { command -v borg; }
version() { borg --version; }
at() { export BORG_BASE_DIR=$1.side; mkdir -p "$BORG_BASE_DIR"; }
setup() { at "$1"; borg init -e none "$1"; }
ingest() { at "$1"; cd "$2"; borg create -C zstd,3 "$1::$3" .; }
restore() { at "$1"; mkdir -p "$3"; cd "$3"; borg extract "$1::$2"; }
