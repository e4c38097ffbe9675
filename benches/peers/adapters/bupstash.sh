# Chunks, compresses and encrypts; its send log skips files whose times did not change.
here() { command -v bupstash; }
version() { bupstash version | head -n 1 | sed 's/^bupstash-/bupstash /'; }
at() { export BUPSTASH_REPOSITORY=$1/repo BUPSTASH_KEY=$1.side/key BUPSTASH_SEND_LOG=$1.side/sent BUPSTASH_QUERY_CACHE=$1.side/query; }
setup() { at "$1"; mkdir -p "$1" "$1.side"; bupstash init; bupstash new-key -o "$BUPSTASH_KEY"; }
ingest() { at "$1"; bupstash put -q label="$3" "$2"; }
restore() { at "$1"; mkdir -p "$3"; bupstash restore -q --into "$3" label="$2"; }
