# Ours. DEPOT is the path of the binary. Registering the package is part of the first ingest's time.
here() { [[ -x $DEPOT ]]; }
version() { "$DEPOT" version | head -n 1; }
setup() { mkdir -p "$1" "$1.side"; }
at() { "$DEPOT" --data "$1" package "${@:2}"; }
ingest() {
  if [[ ! -e $1.side/made ]]; then at "$1" create p --source "$2"; : >"$1.side/made"; fi
  at "$1" update p --source "$2"
}
reread() { at "$1" update p --source "$2" --read-all; }
restore() { at "$1" restore p "$3"; }
stage() { setup "$1"; ingest "$1" "$2" objects; }
# Without the access log, as the peers.
serve() { exec "$DEPOT" serve --data "$1" --listen "127.0.0.1:$2" --set log.access=false; }
