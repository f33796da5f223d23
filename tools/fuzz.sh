#!/usr/bin/env bash
# Fuzzes what reads bytes: tools/fuzz.sh SECONDS [TARGET …]. Each target of core/fuzz and gateway/fuzz for so long, from its seeds; what is found stays in
# target/fuzz/artifacts, what was learned in target/fuzz/corpus. cargo-fuzz wants a nightly compiler for its flags only.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh

seconds=${1:-60}
shift || true
[ $# -gt 0 ] || set -- identifier cursor tick number moment pattern token frame said
CARGO_FUZZ_VERSION=0.13.2
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$PWD/target/fuzz

[ "$("$CARGO_BIN/cargo-fuzz" --version 2>/dev/null)" = "cargo-fuzz $CARGO_FUZZ_VERSION" ] ||
    step "cargo-fuzz $CARGO_FUZZ_VERSION" cargo install --locked cargo-fuzz --version "$CARGO_FUZZ_VERSION" --force
for target; do
    folder=core/fuzz
    [ -f "$folder/targets/$target.rs" ] || folder=gateway/fuzz
    mkdir -p "target/fuzz/corpus/$target" "target/fuzz/artifacts/$target"
    step "the fuzzer of $target" cargo fuzz build --fuzz-dir "$folder" "$target"
    step "$target, $seconds s" cargo fuzz run --fuzz-dir "$folder" "$target" "target/fuzz/corpus/$target" "$folder/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -artifact_prefix="target/fuzz/artifacts/$target/"
done
