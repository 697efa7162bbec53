#!/usr/bin/env bash
# Runs a command beside a MariaDB of its own, in a folder of its own, and ends it: with-mariadb.sh COMMAND [ARG …]
# The command finds it by LATCHKEY_TEST_MYSQL_URL.
set -euo pipefail

folder=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap finish EXIT

fail() {
  echo "with-mariadb.sh: $*" >&2
  tail -n 20 "$folder/log" >&2 || true
  exit 1
}

PATH=$PATH:/usr/sbin
user=$(id -un)
mariadb-install-db --no-defaults --user="$user" --datadir="$folder/data" --auth-root-authentication-method=normal \
  --tmpdir="$folder" --skip-test-db --force >"$folder/log" 2>&1 || fail "the database could not be made (is mariadb-server installed?)"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# Nobody cuts its power: what it has committed need not be on disk.
mariadbd --no-defaults --user="$user" --datadir="$folder/data" --socket="$folder/socket" --pid-file="$folder/pid" --tmpdir="$folder" \
  --innodb-flush-log-at-trx-commit=0 --bind-address=127.0.0.1 --port="$port" >>"$folder/log" 2>&1 &
server=$!
client() { mariadb --no-defaults --socket="$folder/socket" --user=root "$@"; }
for _ in $(seq 300); do
  client --execute "SELECT 1" >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || fail "MariaDB ended"
  sleep 0.1
done
client --execute "CREATE USER latchkey@'127.0.0.1' IDENTIFIED BY 'test'; GRANT ALL ON *.* TO latchkey@'127.0.0.1' WITH GRANT OPTION" ||
  fail "MariaDB does not answer"
export LATCHKEY_TEST_MYSQL_URL="mysql://latchkey:test@127.0.0.1:$port/mysql"
"$@"
