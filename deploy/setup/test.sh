#!/usr/bin/env bash
# What `make test` needs besides demo.sh. Silent when nothing is missing. Nothing that it installs is started.
. "$(dirname "$0")/lib.sh"
REDIS=1 "$(dirname "$0")/demo.sh"

cache="$HOME/.cache/latchkey"
pebble_version=v2.10.1
pebble_go_min=24

has mariadbd || want mariadb-server "CertService's store, besides SQLite"
has haproxy || want haproxy "a real load balancer that sends PROXY v2"
has named || want bind9 "a real name server that takes signed updates (RFC 2136)"
[ -e /usr/lib/softhsm/libsofthsm2.so ] || want softhsm2 "a PKCS #11 token for an edge's private key"
has pkcs11-tool || want opensc "makes keys in such a token"
{ has clang-19 || has clang; } || want clang-19 "a plugin written in C"
ls /usr/bin/wasm-ld* >/dev/null 2>&1 || want lld-19 "links it"
[ -f /usr/lib/wasm32-wasi/libc.a ] || want wasi-libc "its C library"
has chromium || want chromium "a real browser sees promises of HTTPS (HSTS) and their withdrawal"
has certutil || want libnss3-tools "tells that browser which root to trust (certutil)"
has openssl || want openssl "a real TLS client (s_client)"
{ has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; } || want python3-venv "an independent JOSE implementation (jwcrypto) opens sealed bundles; Schemathesis tries the API by its OpenAPI document"

# Pebble, the ACME test CA: the current release needs a newer Go than Debian's; else Debian's Pebble.
go_minor() { go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p'; }
pebble_from_go= pebble_from_debian=
if [ ! -x "$cache/bin/pebble" ] || [ ! -x "$cache/bin/pebble-challtestsrv" ]; then
  if has go && [ "$(go_minor)" -ge $pebble_go_min ]; then pebble_from_go=1
  else
    has pebble || want pebble "ACME test CA (Debian's; Go 1.$pebble_go_min or newer would get $pebble_version)"
    pebble_from_debian=1
  fi
fi
has promtool || want prometheus "promtool tries the shipped alerts on made-up series"
install_wanted

if [ -n "$pebble_from_debian" ]; then
  mkdir -p "$cache/bin"
  ln -sf "$(command -v pebble)" "$cache/bin/pebble"
  cp "$(dirname "$0")/debian-challtestsrv.sh" "$cache/bin/pebble-challtestsrv"
fi

if [ -n "$pebble_from_go" ]; then
  say "building Pebble $pebble_version (ACME test CA) with go install"
  GOBIN="$cache/bin" go install "github.com/letsencrypt/pebble/v2/cmd/pebble@$pebble_version"
  GOBIN="$cache/bin" go install "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@$pebble_version"
fi

if ! "$cache/venv/bin/python" -c 'import jwcrypto, schemathesis' 2>/dev/null; then
  say "installing jwcrypto and schemathesis into a Python environment of their own: $cache/venv"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/python" -m pip --quiet install --requirement "$(dirname "$0")/../../tests/requirements.txt"
fi

for component in clippy rustfmt; do
  cargo ${component/rustfmt/fmt} --version >/dev/null 2>&1 && continue
  has rustup || fail "cargo ${component/rustfmt/fmt} is missing and there is no rustup to add it"
  say "adding Rust's $component with rustup"
  rustup --quiet component add $component
done
