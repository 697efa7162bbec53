#!/usr/bin/env bash
# What building and `make demo` need. Silent when nothing is missing; REDIS=1 adds Redis.
. "$(dirname "$0")/lib.sh"

has cargo || fail "there is no Rust toolchain (cargo); install one from https://rustup.rs, then run this again"

{ has cc && has make && [ -e /usr/include/stdio.h ]; } || want build-essential "C compiler and headers: OpenSSL, SQLite and ring are built from source"
has cmake || want cmake "zlib-ng, under Pingora, is built from source"
perl -MIPC::Cmd -MFindBin -e1 2>/dev/null || want perl "OpenSSL's configure script"
has curl || want curl "to try the requests that the demo prints"
[ -e /etc/ssl/certs/ca-certificates.crt ] || want ca-certificates "to verify the servers that crates are fetched from"
if [ -n "${REDIS:-}" ]; then
  has redis-server || want redis-server "the cache that edges share"
fi
install_wanted

# The guests' target: from rustup where it can download, else from Debian's packages.
wasm=wasm32-unknown-unknown
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$wasm" ]; then
  if has rustup; then
    say "adding Rust's target $wasm with rustup: plugins are built for it"
    rustup --quiet target add $wasm || say "rustup could not add it; trying Debian's packages"
  fi
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$wasm" ]; then
  for package in rustc-web cargo-web rust-web-src lld-19; do
    dpkg -s $package >/dev/null 2>&1 || want $package "builds plugins for $wasm"
  done
  install_wanted
fi
