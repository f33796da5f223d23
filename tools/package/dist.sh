#!/usr/bin/env bash
# The sources of the last commit: pushy-VERSION.zip, as PGXN takes it, and pushy-VERSION.tar.gz, in target/dist.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/package/common.sh

git rev-parse HEAD >/dev/null 2>&1 || fail "the sources are taken from git, and this is no checkout"
[ -z "$(git status --porcelain)" ] || echo "dist: what is not committed is left out" >&2
mkdir -p $DIST
for format in zip tar.gz; do
    git archive --format=$format --prefix="pushy-$VERSION/" -o "$DIST/pushy-$VERSION.$format" HEAD
done
made "$DIST/pushy-$VERSION".{zip,tar.gz}
