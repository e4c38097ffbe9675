# The content server to beat: one worker, sendfile, objects kept open (so the limit of open files, which serve.sh raises,
# must hold the cache and the connections), the same paths as depot.
here() { command -v nginx; }
version() { nginx -v 2>&1 | sed 's/.*: //'; }
stage() {
  local hex name
  mkdir -p "$1/www/content"
  while read -r hex name; do ln "$name" "$1/www/content/blake3:$hex" 2>/dev/null || cp "$name" "$1/www/content/blake3:$hex"; done < <(find "$2" -type f -exec b3sum {} +)
}
serve() {
  cat >"$1/nginx.conf" <<CONF
daemon off; pid $1/pid; error_log stderr error; user root; worker_processes 1;
events { use epoll; multi_accept on; worker_connections 8192; }
http {
  access_log off; default_type application/octet-stream;
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 600; keepalive_requests 1000000000;
  open_file_cache max=15000 inactive=1h; open_file_cache_valid 1h;
  server { listen 127.0.0.1:$2 backlog=4096; root $1/www; }
}
CONF
  exec nginx -p "$1" -c "$1/nginx.conf"
}
