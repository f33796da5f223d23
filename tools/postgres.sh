#!/usr/bin/env bash
# Which PostgreSQL: sets and exports PG_CONFIG, and PG_MAJOR, its major version. Sourced by every script; run by itself it prints
# PG_CONFIG, as Makefile and Python ask for it. PG_CONFIG decides where it is set; else it is the newest that can be built for
# here, else the one that this Debian has, else whatever pg_config is found.

PG_MAJORS="15 16 17 18"

# newest_here: the newest supported major that has its server and its headers installed.
newest_here() {
    local major found=
    for major in $PG_MAJORS; do
        if [ -x "/usr/lib/postgresql/$major/bin/pg_config" ] && [ -d "/usr/include/postgresql/$major/server" ]; then
            found=$major
        fi
    done
    echo "$found"
}

# debians_major: the one that the packages of this Debian are for.
debians_major() {
    case $(. /etc/os-release 2>/dev/null; echo "${VERSION_CODENAME:-}") in
        bookworm) echo 15 ;;
        trixie) echo 17 ;;
        forky | sid) echo 18 ;;
    esac
}

if [ -z "${PG_CONFIG:-}" ]; then
    PG_MAJOR=$(newest_here)
    PG_MAJOR=${PG_MAJOR:-$(debians_major)}
    PG_CONFIG=$([ -z "$PG_MAJOR" ] && echo pg_config || echo "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config")
fi
# Before it is installed, Debian's path says which it will be.
PG_MAJOR=$({ "$PG_CONFIG" --version 2>/dev/null || true; } | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
PG_MAJOR=${PG_MAJOR:-$(sed -n 's|^/usr/lib/postgresql/\([0-9]*\)/bin/pg_config$|\1|p' <<<"$PG_CONFIG")}
case " $PG_MAJORS " in
    *" ${PG_MAJOR:-none} "*) ;;
    *)
        echo "PostgreSQL ${PG_MAJOR:-of unknown version} ($PG_CONFIG) is not one of $PG_MAJORS: say which with PG_CONFIG=/path/to/pg_config" >&2
        exit 1
        ;;
esac
export PG_CONFIG PG_MAJOR

[ "${BASH_SOURCE[0]}" != "$0" ] || echo "$PG_CONFIG"
