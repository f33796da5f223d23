#!/usr/bin/env bash
# Lays a built tree into the PostgreSQL of PG_CONFIG: tools/install.sh [TREE]; tools/install.sh --remove takes it away.
# DESTDIR goes before every path. Without TREE it is the release build, which is made first where it is missing or old.
#
# Each file is written beside its place and renamed onto it, because a server keeps the library mapped: bytes copied over that file
# are code that changes under running processes, and the server dies at its next connection. After a rename it has the old file still.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/postgres.sh
DESTDIR=${DESTDIR:-}

fail() {
    echo "install: $*" >&2
    exit 1
}

if ! "$PG_CONFIG" --version >/dev/null 2>&1; then
    [ $# = 0 ] || fail "no PostgreSQL at PG_CONFIG=$PG_CONFIG: name the pg_config of yours"
    tools/setup.sh build
fi
server="PostgreSQL $PG_MAJOR"
library=$DESTDIR$("$PG_CONFIG" --pkglibdir)
extension=$DESTDIR$("$PG_CONFIG" --sharedir)/extension

# Where this account may not write, each file goes through sudo.
may_write() {
    local folder=$1
    until [ -e "$folder" ]; do folder=$(dirname "$folder"); done
    [ -w "$folder" ]
}
writer=()
if ! may_write "$library" || ! may_write "$extension"; then
    command -v sudo >/dev/null || fail "no right to write to $library, and no sudo: call it as root"
    writer=(sudo)
fi

# The tree was built for this server, after the last change of the sources.
fresh() {
    [ "$(cat "$tree/built-for" 2>/dev/null)" = "$server" ] &&
        [ -z "$(find Cargo.toml Cargo.lock pushy.control sql src core/Cargo.toml core/src -newer "$tree/built-for" -print -quit 2>/dev/null)" ]
}

build() {
    # Under sudo the build would be root's, in root's home, with files that its owner cannot change any more.
    [ -z "${SUDO_UID:-}" ] || fail "nothing is built for $server since the last change: call 'make PG_CONFIG=$PG_CONFIG all' without sudo first"
    tools/setup.sh build
    tools/build.sh release
}

put() {
    local name new
    name=$(basename "$1")
    new=$2/.$name.$$
    [ -d "$2" ] || "${writer[@]}" install -d -m 755 "$2"
    if ! "${writer[@]}" install -m 644 "$1" "$new" || ! "${writer[@]}" mv -fT "$new" "$2/$name"; then
        "${writer[@]}" rm -f "$new"
        fail "$2/$name is as it was"
    fi
}

if [ "${1:-}" = --remove ]; then
    "${writer[@]}" rm -f "$extension/pushy.control" "$extension"/pushy--*.sql "$library/pushy.so"
    echo "install: Pushy is gone from $library and $extension; a running server has its library until it is restarted without it"
    exit
fi

tree=${1:-target/package-release-$PG_MAJOR}
if [ $# = 0 ]; then
    fresh || build
fi
[ "$(cat "$tree/built-for" 2>/dev/null)" = "$server" ] || fail "$tree was built for $(cat "$tree/built-for" 2>/dev/null || echo nothing), not for $server"

# The control file last, because it names the script.
while read -r file; do put "$file" "$library"; done < <(find "$tree" -name 'pushy.so')
while read -r file; do put "$file" "$extension"; done < <(find "$tree" -name 'pushy--*.sql')
while read -r file; do put "$file" "$extension"; done < <(find "$tree" -name 'pushy.control')
echo "install: Pushy for $server is in $library and $extension"
[ -n "$DESTDIR" ] || echo "install: next, shared_preload_libraries = 'pushy' and a restart; a running server goes on with the library that it has"
