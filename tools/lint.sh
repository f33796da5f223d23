#!/usr/bin/env bash
# Format, clippy without a warning, names without a schema in any SQL text, and pgspot over the install script.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cargo.sh

cargo fmt --all --check
cargo fmt --manifest-path pg_test/rust_client/Cargo.toml --check
cargo clippy --workspace --all-targets -- -D warnings
CARGO_TARGET_DIR=target/rust_client cargo clippy --manifest-path pg_test/rust_client/Cargo.toml --all-targets -- -D warnings

target/venv/bin/python tools/lint_sql.py
tools/build.sh dev
target/venv/bin/pgspot $(find target/package-dev -name 'pushy--*.sql')
