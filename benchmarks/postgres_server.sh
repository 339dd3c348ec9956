#!/usr/bin/env bash
# A PostgreSQL of one's own on this machine, to try `search.storage=postgresql://...`. On Debian
#     apt-get install --no-install-recommends postgresql
#
#     benchmarks/postgres_server.sh start DIR    # prints the storage's URL; DIR keeps its data
#     benchmarks/postgres_server.sh stop DIR
#
# As root it runs as the user `postgres`, since PostgreSQL refuses root. It listens on 127.0.0.1 alone, and lets this machine's
# users in without a password.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }
[ $# = 2 ] || fail "usage: $0 start DIR | stop DIR"
mkdir -p "$2" && dir=$(cd "$2" && pwd)
programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
PATH=${programs:+$programs:}$PATH
command -v initdb >/dev/null || fail "no initdb: apt-get install postgresql"

as_user() {
  if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); else "$@"; fi
}

start() {
  if [ ! -f "$dir/port" ]; then
    [ "$(id -u)" != 0 ] || chown postgres "$dir"
    as_user initdb --no-sync -U search --auth=trust -D "$dir/data" >"$dir/initdb.log"
    python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])' >"$dir/port"
  fi
  read -r port <"$dir/port"
  as_user pg_ctl -s -w -D "$dir/data" -l "$dir/data/server.log" -o "-h 127.0.0.1 -p $port -c unix_socket_directories=''" start
  as_user psql -q -h 127.0.0.1 -p "$port" -U search postgres -tc "SELECT 1 FROM pg_database WHERE datname = 'studies'" |
    grep -q 1 || as_user createdb -h 127.0.0.1 -p "$port" -U search studies
  echo "postgresql://search@127.0.0.1:$port/studies"
}

stop() { as_user pg_ctl -s -w -m immediate -D "$dir/data" stop; }

case $1 in
  start | stop) $1 ;;
  *) fail "usage: $0 start DIR | stop DIR" ;;
esac
