#!/usr/bin/env bash
# Licences, bans, sources and, where the advisory database can be fetched, advisories of all crates.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.."

if ! has cargo-deny; then
  echo "cargo-deny is not installed: licences and advisories are not checked (cargo install --locked cargo-deny)"
  exit 0
fi
checks="bans licenses sources"
if cargo deny fetch db >/dev/null 2>&1; then checks="advisories $checks"
else echo "the advisory database can't be fetched: advisories are not checked; $checks are"
fi
for manifest in Cargo.toml plugins/Cargo.toml; do
  echo "cargo deny: $manifest"
  cargo deny --locked --manifest-path $manifest --config .deny.toml check --allow unused-wrapper $checks
done
