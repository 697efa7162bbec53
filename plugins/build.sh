#!/bin/sh
# Builds all guests as components, from source: plugins/built/<name>.wasm. Does nothing that is done already.
#
#   LATCHKEY_GUEST_TOOLCHAIN=rustup|debian   which compiler; by default the first of them that is there
#   LATCHKEY_GUESTS_DIR=<folder>             where the components go; default: built/ beside this script
#   LATCHKEY_PLUGIN=<folder>                 compiles the package of that folder instead, to its built/
#   CARGO_TARGET_DIR=<folder>                intermediate files go to its guests/; default: target/ beside this script
set -eu
cd "$(dirname "$0")"

target=wasm32-unknown-unknown
guests="hsts redirects proxy-policy require-header blocklist rewrite forward-auth hostile hostile-waiting other-world"
out=${LATCHKEY_GUESTS_DIR:-built}
package=.
locked=--locked
if [ -n "${LATCHKEY_PLUGIN:-}" ]; then
    package=$LATCHKEY_PLUGIN
    guests=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$package/Cargo.toml" | head -n 1)
    out=${LATCHKEY_GUESTS_DIR:-$package/built}
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$package/target}
    # What it depends on is its author's to lock.
    locked=
fi

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

# The target's standard library comes with rustup…
have_rustup() {
    command -v rustup >/dev/null && command -v cargo >/dev/null || return 1
    rustup target list --installed 2>/dev/null | grep -qx "$target" && return 0
    echo "build.sh: adding the Rust target $target, which plugins are compiled for" >&2
    rustup target add "$target" >&2
}

# …and is built from source with Debian's compiler.
have_debian() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -n "$(debian_linker)" ] &&
        [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.toml" ]
}

debian_linker() {
    ls /usr/bin/wasm-ld /usr/bin/wasm-ld-[0-9]* 2>/dev/null | sort -V | tail -n 1
}

toolchain=${LATCHKEY_GUEST_TOOLCHAIN:-}
case $toolchain in
rustup) have_rustup || fail "rustup cannot provide the target $target: check the network, or install Debian's packages" ;;
debian) have_debian || fail "Debian's packages are missing: apt-get install rustc-web cargo-web rust-web-src lld-19" ;;
'')
    if have_rustup; then
        toolchain=rustup
    elif have_debian; then
        toolchain=debian
    else
        fail "no compiler for $target. Either: rustup target add $target (https://rustup.rs)
          Or, on Debian: apt-get install rustc-web cargo-web rust-web-src lld-19"
    fi
    ;;
*) fail "LATCHKEY_GUEST_TOOLCHAIN is '$toolchain', rustup or debian is expected" ;;
esac

# A folder for each toolchain: they would rebuild each other's work.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/guests/$toolchain
export CARGO_TARGET_DIR

# A small stack makes instances small. No path of this machine gets into a component, so that it is the same elsewhere.
flags="-Clink-arg=-zstack-size=65536 --remap-path-prefix=$PWD=plugins"
[ "$package" = . ] || flags="$flags --remap-path-prefix=$package=plugin"
flags="$flags --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
cargo=cargo
std=
if [ "$toolchain" = debian ]; then
    cargo=/usr/bin/cargo
    std=-Zbuild-std=std,panic_abort
    flags="$flags --remap-path-prefix=$(/usr/bin/rustc --print sysroot)/lib/rustlib/src=rust"
    RUSTC=/usr/bin/rustc
    RUSTC_BOOTSTRAP=1 # the standard library is built for the target, which Debian does not ship
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(debian_linker)
    export RUSTC RUSTC_BOOTSTRAP CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
fi
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS

modules=
packages=
for guest in $guests; do
    packages="$packages -p $guest"
    modules="$modules $CARGO_TARGET_DIR/$target/release/$(echo "$guest" | tr - _).wasm"
done
# shellcheck disable=SC2086 # lists of words
(cd "$package" && CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=$flags $cargo build --quiet $locked --release --target "$target" $std $packages)
# shellcheck disable=SC2086
$cargo run --quiet $locked -p wrap -- "$out" $modules
