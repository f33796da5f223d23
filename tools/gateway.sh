#!/usr/bin/env bash
# The gateway, a program of its own: tools/gateway.sh dev | release builds it into target/gateway; install lays the release build beside the
# programs of the PostgreSQL of PG_CONFIG, below DESTDIR if that is set, where the server looks for it; remove takes it away.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh

export CARGO_TARGET_DIR=target/gateway
build() {
    cargo build --quiet --locked --manifest-path gateway/Cargo.toml "$@"
}

case ${1:-release} in
    dev) step "gateway (dev)" build ;;
    release) step "gateway (release)" build --release ;;
    install)
        . tools/postgres.sh
        folder=${DESTDIR:-}$("$PG_CONFIG" --bindir)
        [ -z "${SUDO_UID:-}" ] || [ -e target/gateway/release/pushy-gateway ] || {
            echo "gateway: not built yet: call 'make gateway' without sudo first" >&2
            exit 1
        }
        [ -n "${SUDO_UID:-}" ] || step "gateway (release)" build --release
        # Written beside its place and renamed onto it: one that runs keeps its own.
        install -D -m 755 target/gateway/release/pushy-gateway "$folder/.pushy-gateway.new"
        mv -fT "$folder/.pushy-gateway.new" "$folder/pushy-gateway"
        echo "gateway: pushy-gateway is in $folder"
        ;;
    remove)
        . tools/postgres.sh
        rm -f "${DESTDIR:-}$("$PG_CONFIG" --bindir)/pushy-gateway"
        ;;
    *)
        echo "gateway: dev, release, install or remove" >&2
        exit 2
        ;;
esac
