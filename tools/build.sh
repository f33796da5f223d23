#!/usr/bin/env bash
# Builds the extension as an installable tree: tools/build.sh dev | release
# The tree, target/package-dev-MAJOR or target/package-release-MAJOR, is what tests, demo and benchmark lay over a private
# copy of PostgreSQL; tools/install.sh lays it into the machine's own. Its file 'built-for' says for which major, and since when.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh
. tools/postgres.sh

kind=${1:-release}
tree=target/package-$kind-$PG_MAJOR

# What others get names no folder of who built it: neither in messages of a panic nor in debug information. CARGO_ENCODED_RUSTFLAGS takes
# paths with spaces; it hides the flag that cargo-pgrx gives the linker, without which the section that the script is made of is dropped.
forget_folders() {
    local flags=() sysroot flag
    sysroot=$(rustc --print sysroot)
    read -ra flags <<<"${RUSTFLAGS:-}"
    flags+=(-C link-arg=-Wl,--no-gc-sections)
    export CC_SHELL_ESCAPED_FLAGS=1 CFLAGS=${CFLAGS:-}
    # Headers in a tree of tools/majors.sh are called as in the Debian that it is of.
    for flag in "$HOME=home" "$sysroot=rust" "${CARGO_HOME:-$HOME/.cargo}=cargo" "$PWD=pushy" "$(tools/majors.sh --folder)/$PG_MAJOR="; do
        flags+=("--remap-path-prefix=$flag")
        CFLAGS+=" $(printf %q "-ffile-prefix-map=$flag")"
    done
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
    export CARGO_ENCODED_RUSTFLAGS
}

package() {
    exec 9>&-
    [ "$kind" != release ] || forget_folders
    mkdir -p "$tree.new"
    echo "PostgreSQL $PG_MAJOR" >"$tree.new/built-for"
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
