#!/usr/bin/env bash
# Builds the extension as an installable tree: tools/build.sh dev | release
# The tree, target/package-dev or target/package-release, is what tests, demo and benchmark lay over a private
# copy of PostgreSQL; 'make install' is for the machine's own.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh

PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
kind=${1:-release}
profile=$kind

package() {
    exec 9>&-
    "$CARGO_BIN/cargo-pgrx" pgrx package --profile "$profile" --pg-config "$PG_CONFIG" --out-dir "target/package-$kind.new"
    # One that is being copied by another run stays whole.
    rm -rf "target/package-$kind.old"
    [ ! -d "target/package-$kind" ] || mv "target/package-$kind" "target/package-$kind.old"
    mv "target/package-$kind.new" "target/package-$kind"
    rm -rf "target/package-$kind.old"
}

mkdir -p target
exec 9>target/build.lock
flock 9
rm -rf "target/package-$kind.new"
step "build ($kind)" package
