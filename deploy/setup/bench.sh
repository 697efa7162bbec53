#!/usr/bin/env bash
# What `make bench` needs besides demo.sh. Silent when nothing is missing. Nothing that it installs is started. A peer that
# can't be had here is no error: the results name it as missing.
. "$(dirname "$0")/lib.sh"
REDIS=1 "$(dirname "$0")/demo.sh"

cache="$HOME/.cache/latchkey"
caddy_version=v2.11.9
caddy_redis_version=v1.8.1

has taskset || want util-linux "taskset: servers and load on cores of their own"
has nginx || want nginx-light "a peer"
[ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || want libnginx-mod-http-lua "nginx with certificates by Lua"
has haproxy || want haproxy "a peer"
has openssl || want openssl "openssl speed: the limit of handshakes"
install_wanted

# Caddy with its storage in Redis, from source, where Go is; without that storage where only the storage can't be had.
build_caddy() {
  go mod init bench/caddy
  cat >main.go <<'EOF'
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/pberkel/caddy-storage-redis"
)

func main() { caddycmd.Main() }
EOF
  go get "github.com/caddyserver/caddy/v2@$caddy_version" "github.com/pberkel/caddy-storage-redis@$caddy_redis_version" \
    && go mod tidy && go build -o "$cache/bin/caddy" .
}

if [ ! -x "$cache/bin/caddy" ] && has go; then
  say "building Caddy $caddy_version with its storage in Redis (a few minutes)"
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  mkdir -p "$cache/bin"
  if ! (cd "$source" && build_caddy) >"$source/log" 2>&1; then
    say "not with that storage: $(tail -n 1 "$source/log"); building it alone"
    GOBIN="$cache/bin" go install "github.com/caddyserver/caddy/v2/cmd/caddy@$caddy_version" >"$source/log" 2>&1 \
      || say "nor alone: $(tail -n 1 "$source/log")"
  fi
fi
exit 0
