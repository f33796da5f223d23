#!/usr/bin/env bash
# The pages as a site in target/book/site, by mdBook, which is fetched once. It opens from the disk, without a server.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh
. tools/cargo.sh

MDBOOK_VERSION=0.5.4
mdbook=target/tools/bin/mdbook

if [ "$($mdbook --version 2>/dev/null)" != "mdbook v$MDBOOK_VERSION" ]; then
    mkdir -p target/tools
    # Without its own server and its watching of files it needs half of the crates.
    step "mdBook $MDBOOK_VERSION (some minutes, once)" cargo install --quiet --locked --root target/tools --force mdbook \
        --version $MDBOOK_VERSION --no-default-features --features search || {
        echo "docs: mdBook $MDBOOK_VERSION is fetched from crates.io once, and that did not work: without a network take one that is built elsewhere" \
            "to $PWD/$mdbook, or read the pages as they are, from README.md on" >&2
        exit 1
    }
fi
tools/book.py lay
$mdbook build --dest-dir "$PWD/target/book/site" target/book
tools/book.py check
echo "target/book/site/index.html"
