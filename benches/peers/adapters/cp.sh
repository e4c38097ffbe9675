# Yardstick: a plain copy, synced to the disk where the tree is a few files.
here() { :; }
version() { cp --version | head -n 1; }
setup() { mkdir -p "$1"; }
ingest() {
  rm -rf "${1:?}/$3"; cp -a "$2" "$1/$3"
  [[ $(find "$1/$3" -type f | head -n 100 | wc -l) == 100 ]] || find "$1/$3" -type f -exec sync {} +
}
restore() { cp -a "$1/$2" "$3"; }
