#!/bin/sh
# Builds the example in C as a component: plugins/built/maintenance.wasm. Needs clang, wasm-ld and wasi-libc; on Debian:
#
#   apt-get install clang-19 lld-19 wasi-libc
#
#   LATCHKEY_GUESTS_DIR=<folder>   where the component goes; default: built/ beside this script
#   CARGO_TARGET_DIR=<folder>      intermediate files go to its guests/; default: target/ beside this script
set -eu
cd "$(dirname "$0")"

out=${LATCHKEY_GUESTS_DIR:-built}
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/guests/c
export CARGO_TARGET_DIR
work=$CARGO_TARGET_DIR/maintenance
headers=/usr/include/wasm32-wasi
libraries=/usr/lib/wasm32-wasi

clang=$(command -v clang-19 || command -v clang) || { echo "build-c.sh: no clang: apt-get install clang-19 lld-19" >&2; exit 1; }
[ -f "$libraries/libc.a" ] || { echo "build-c.sh: no C library for wasm32: apt-get install wasi-libc" >&2; exit 1; }

# Bindings of the world, and an object with its description, which makes the module a component.
cargo run --quiet --locked -p bind-c -- ../wit http-plugin "$work"
# A library that starts nothing: no WASI is imported, since nothing of libc is called that would need it.
"$clang" --target=wasm32-wasi -Os -Wall -Wextra -nostdinc -isystem "$headers" -isystem "$("$clang" -print-resource-dir)/include" \
    -nostdlib -fuse-ld=lld -mexec-model=reactor -Wl,--no-entry -Wl,-z,stack-size=65536 -Wl,--strip-debug -I "$work" \
    examples/maintenance-c/maintenance.c "$work/http_plugin.c" "$work/http_plugin_component_type.o" \
    -L "$libraries" -lc -o "$work/maintenance.wasm"
cargo run --quiet --locked -p wrap -- "$out" "$work/maintenance.wasm"
