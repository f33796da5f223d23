#!/usr/bin/env bash
# Everything the build and the tests need, on a Debian with only Rust (tools/setup.sh build: the build alone; demo: the build and the demo; farm: that
# of workers outside too; clients: the packages of these workers alone, without Rust and PostgreSQL). Steps already done are skipped.
# For the PostgreSQL that PG_CONFIG says, whose packages are installed if it is one of Debian's (tools/postgres.sh).
# It installs packages (through sudo unless root) and never touches or starts a cluster of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh

kind=${1:-all}
if [ "$kind" != clients ]; then
    . tools/cargo.sh
    . tools/postgres.sh
fi
PGRX_VERSION=0.18.1
PGRX_CONFIG=${PGRX_HOME:-$HOME/.pgrx}/config.toml
PACKAGES=()
[ "$kind" = clients ] || PACKAGES+=(clang libclang-dev gcc make pkg-config)
if [[ ${PG_CONFIG:-} == /usr/lib/postgresql/* ]]; then
    PACKAGES+=("postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR")
fi
[ "$kind" = build ] || PACKAGES+=(python3 python3-venv)
# Whose packages start a service when they are installed first.
SERVICES=(pgbouncer nginx caddy)
if [ "$kind" = all ]; then
    PACKAGES+=(patchelf libpostgresql-jdbc-java)
    [[ $PG_CONFIG != /usr/lib/postgresql/* ]] || PACKAGES+=("postgresql-plpython3-$PG_MAJOR")
    # Any JDK serves the test of JDBC.
    command -v javac >/dev/null || PACKAGES+=(default-jdk-headless)
    # Tests run some of their own. Not what is there already, from wherever it came.
    for program in "${SERVICES[@]}" chromium; do
        command -v "$program" >/dev/null || PACKAGES+=("$program")
    done
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
        apt-get install -y -q --no-install-recommends "$@"
}

# Debian's package makes and starts a cluster 'main' when it is installed first. Nobody asked for one: switched
# off for the length of the installation, unless the machine already has its own idea about that.
without_main_cluster() {
    local switch=/etc/postgresql-common/createcluster.d/pushy-setup.conf
    apt_install postgresql-common
    if grep -qs '^ *create_main_cluster' /etc/postgresql-common/createcluster.conf; then
        "$@"
        return
    fi
    echo "setup: Debian's default cluster 'main' is not created: Pushy's servers are its own"
    as_root mkdir -p "$(dirname $switch)"
    echo 'create_main_cluster = false' | as_root tee $switch >/dev/null
    local result=0
    "$@" || result=$?
    as_root rm -f $switch
    return $result
}

# Nobody asked for services either: those that come with a package now are ended and do not come back.
without_services() {
    local new=() service
    for service in "${SERVICES[@]}"; do
        installed "$service" || new+=("$service")
    done
    "$@"
    for service in "${new[@]}"; do
        if installed "$service" && [ -d /run/systemd/system ]; then
            as_root systemctl disable --quiet --now "$service"
        fi
    done
}

install_packages() {
    as_root apt-get update -q
    if ! apt-cache show "${@: -1}" >/dev/null 2>&1; then
        echo "setup: no package ${*: -1} in this machine's sources: add the PostgreSQL project's own (apt.postgresql.org)," \
            "or say another PostgreSQL with PG_CONFIG" >&2
        return 1
    fi
    if [ "$kind" = clients ] || installed "postgresql-$PG_MAJOR"; then
        without_services apt_install "$@"
    else
        without_main_cluster without_services apt_install "$@"
    fi
}

packages() {
    command -v apt-get >/dev/null || { have "no apt-get here: expecting ${PG_CONFIG:-Python with its module venv}"; return; }
    local missing=()
    for package in "${PACKAGES[@]}"; do
        installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        have "Debian packages"
    else
        if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
            echo "setup: missing packages, and neither root nor sudo: ${missing[*]}" >&2
            exit 1
        fi
        step "Debian packages: ${missing[*]}" install_packages "${missing[@]}"
    fi
}

headers() {
    if [ ! -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ]; then
        echo "setup: no headers of PostgreSQL $PG_MAJOR in $("$PG_CONFIG" --includedir-server): install what your system calls" \
            "postgresql-server-dev-$PG_MAJOR (postgresql$PG_MAJOR-devel)" >&2
        exit 1
    fi
}

rust() {
    local version wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        echo "setup: no cargo, neither in PATH nor in ${CARGO_HOME:-$HOME/.cargo}/bin: install Rust $wanted or newer from https://rustup.rs" >&2
        exit 1
    fi
    version=$(rustc --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n' "$wanted" "$version" | sort -V | head -n 1)" != "$wanted" ]; then
        echo "setup: Rust $wanted or newer is needed, and this is $version ($(command -v rustc)): install one from https://rustup.rs" >&2
        exit 1
    fi
}

cargo_pgrx() {
    if [ "$("$CARGO_BIN/cargo-pgrx" pgrx --version 2>/dev/null)" = "cargo-pgrx $PGRX_VERSION" ]; then
        have "cargo-pgrx $PGRX_VERSION"
    else
        step "cargo-pgrx $PGRX_VERSION (about 5 minutes)" \
            cargo install --locked cargo-pgrx --version "$PGRX_VERSION" --force
    fi
}

pgrx_init() {
    if grep -qs "^pg$PG_MAJOR = \"$PG_CONFIG\"" "$PGRX_CONFIG"; then
        have "pgrx knows $PG_CONFIG"
    else
        step "pgrx learns $PG_CONFIG" "$CARGO_BIN/cargo-pgrx" pgrx init "--pg$PG_MAJOR" "$PG_CONFIG"
    fi
}

# The system's Python where there is one: python3 in PATH may be a shim without the venv module.
make_venv() {
    local python=/usr/bin/python3
    [ -x $python ] || python=python3
    $python -m venv --clear target/venv
    target/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r pg_test/requirements.txt
    cp pg_test/requirements.txt target/venv/installed.txt
}

python_venv() {
    if cmp -s pg_test/requirements.txt target/venv/installed.txt && target/venv/bin/python -c '' 2>/dev/null; then
        have "Python packages of the tests"
    else
        mkdir -p target
        step "Python packages of the tests (target/venv)" make_venv
    fi
}

node_packages() {
    local client=target/node_client
    if ! command -v npm >/dev/null; then
        echo "setup: no Node.js here: the tests of its clients are skipped"
    elif cmp -s pg_test/node_client/package-lock.json $client/installed.json; then
        have "Node.js packages of the tests"
    else
        mkdir -p $client
        cp pg_test/node_client/package*.json $client/
        step "Node.js packages of the tests ($client)" npm ci --prefix $client --no-audit --no-fund
        cp $client/package-lock.json $client/installed.json
    fi
}

# Where Node.js looks for them: beside the sources.
typescript_packages() {
    local modules=clients/typescript/node_modules
    if ! command -v npm >/dev/null; then
        return
    elif cmp -s clients/typescript/package-lock.json $modules/installed.json; then
        have "Node.js packages of the TypeScript client"
    else
        step "Node.js packages of the TypeScript client ($modules)" npm ci --prefix clients/typescript --no-audit --no-fund
        cp clients/typescript/package-lock.json $modules/installed.json
    fi
}

rust_clients() {
    local client=target/rust_client
    if cmp -s pg_test/rust_client/Cargo.lock $client/built.lock; then
        have "Rust packages of the tests"
    else
        CARGO_TARGET_DIR=$client step "Rust packages of the tests ($client)" \
            cargo build --quiet --locked --manifest-path pg_test/rust_client/Cargo.toml
        cp pg_test/rust_client/Cargo.lock $client/built.lock
    fi
}

if [ "$kind" = clients ]; then
    packages
    python_venv
    typescript_packages
    exit 0
fi
rust
packages
headers
cargo_pgrx
pgrx_init
[ "$kind" != build ] || exit 0
python_venv
[ "$kind" != demo ] || exit 0
typescript_packages
# Of clients in other languages the tests alone make use.
[ "$kind" = all ] || exit 0
node_packages
rust_clients
