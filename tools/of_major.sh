# Sourced, after tools/cargo.sh. use_major MAJOR: from here on PG_CONFIG and PG_MAJOR are that PostgreSQL's: the one of PG_CONFIG if it is
# that, else this machine's own where it can be built for, else a tree, whose download may fail with 75 (tools/majors.sh). Once in a process.

use_major() {
    local own=/usr/lib/postgresql/$1/bin/pg_config config
    if [[ -n ${PG_CONFIG:-} && "$("$PG_CONFIG" --version 2>/dev/null)" == "PostgreSQL $1."* ]]; then
        :
    elif [ -x "$own" ] && [ -d "/usr/include/postgresql/$1/server" ]; then
        PG_CONFIG=$own
    else
        PG_CONFIG=$(tools/majors.sh "$1")
        # The bindings of each are made for its own headers; what pgrx knows of this machine's stays.
        PGRX_HOME=$(tools/majors.sh --folder)/pgrx
        export PGRX_HOME
        mkdir -p "$PGRX_HOME"
    fi
    . tools/postgres.sh
    config=${PGRX_HOME:-$HOME/.pgrx}/config.toml
    grep -qs "\"$PG_CONFIG\"" "$config" || "$CARGO_BIN/cargo-pgrx" pgrx init "--pg$1" "$PG_CONFIG"
}
