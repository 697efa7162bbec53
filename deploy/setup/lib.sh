# Sourced by the setup scripts: finds out what is missing, says so, installs it.

set -euo pipefail
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

packages=()

say() { printf '  %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# want PACKAGE WHY: remembers a package to install.
want() {
  [ ${#packages[@]} -gt 0 ] || say "missing on this machine, to be installed with apt-get:"
  packages+=("$1")
  say "  $1: $2"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif has sudo; then sudo "$@"
  else fail "root is needed for: $*. Run it as root, or install sudo."
  fi
}

# Installs what was wanted. Services among them are not started: tests and demo run instances of their own.
install_wanted() {
  [ ${#packages[@]} -gt 0 ] || return 0
  has apt-get || fail "there is no apt-get here; install these by hand: ${packages[*]}"
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  local log; log=$(mktemp)
  if ! { as_root apt-get update -qq \
      && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
      >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get failed; its whole output is in $log"
  fi
  rm -f "$log"
  packages=()
  say "installed."
}
