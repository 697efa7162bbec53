#!/usr/bin/env bash
# Licences, bans, sources and, where the advisory database can be fetched, advisories of all crates.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.."

if ! has cargo-deny; then
  echo "cargo-deny is not installed: licences and advisories are not checked (cargo install --locked cargo-deny)"
  exit 0
fi
if cargo deny fetch db >/dev/null 2>&1; then
  cargo deny --locked check advisories bans licenses sources
else
  echo "the advisory database can't be fetched: advisories are not checked, bans, licences and sources are"
  cargo deny --locked --offline check bans licenses sources
fi
