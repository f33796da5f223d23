#!/usr/bin/env bash
# The extension as an image for CloudNativePG: pushy-VERSION-pgMAJOR-ARCHITECTURE.oci.tar in target/dist, for the PostgreSQL of PG_CONFIG.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/postgres.sh
. tools/package/common.sh

[ "$PG_MAJOR" -ge 18 ] || echo "image: PostgreSQL $PG_MAJOR finds extensions in its own folder only; mounted beside it they are found from 18 on" >&2
stage "target/image/$PG_MAJOR"
mkdir -p $DIST
file=$DIST/pushy-$VERSION-pg$PG_MAJOR-$(uname -m).oci.tar
tools/package/image.py "target/image/$PG_MAJOR" "$file" "$VERSION" "$PG_MAJOR"
made "$file"
