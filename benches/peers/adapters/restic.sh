# Chunks, compresses and encrypts; repository format 2.
export RESTIC_PASSWORD=bench
here() { command -v restic; }
version() { restic version | awk '{ print $1, $2 }'; }
at() { restic -q -r "$1" --cache-dir "$1.side" "${@:2}"; }
setup() { at "$1" init --repository-version 2; }
ingest() { cd "$2"; at "$1" backup --host bench --tag "$3" .; }
restore() { at "$1" restore latest --tag "$2" --target "$3"; }
