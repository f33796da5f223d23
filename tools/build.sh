#!/usr/bin/env bash
# Builds the extension as an installable tree: tools/build.sh dev | release
# The tree, target/package-dev-MAJOR or target/package-release-MAJOR, is what tests, demo and benchmark lay over a private
# copy of PostgreSQL; 'make install' is for the machine's own.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh
. tools/postgres.sh

kind=${1:-release}
tree=target/package-$kind-$PG_MAJOR

package() {
    exec 9>&-
    "$CARGO_BIN/cargo-pgrx" pgrx package --profile "$kind" --pg-config "$PG_CONFIG" --out-dir "$tree.new"
    # One that is being copied by another run stays whole.
    rm -rf "$tree.old"
    [ ! -d "$tree" ] || mv "$tree" "$tree.old"
    mv "$tree.new" "$tree"
    rm -rf "$tree.old"
}

mkdir -p target
exec 9>target/build.lock
flock 9
rm -rf "$tree.new"
step "build ($kind, PostgreSQL $PG_MAJOR)" package
