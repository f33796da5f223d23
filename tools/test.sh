#!/usr/bin/env bash
# Every test: pure logic, then everything that needs a server, then the clients' own. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cargo.sh
started=$SECONDS

cargo test --quiet -p pushy-core
# Not where some tests were asked for: it takes a build of its own.
[ $# -gt 0 ] || CARGO_TARGET_DIR=target/gateway cargo test --quiet --manifest-path gateway/Cargo.toml
tools/build.sh dev
tools/gateway.sh dev

result=0
target/venv/bin/python -m pytest pg_test -q -n "${PUSHY_TEST_SERVERS:-4}" "$@" || result=$?
# Not where some tests were asked for.
[ $# -gt 0 ] || tools/test_clients.sh || result=$?
if [ $result = 0 ]; then
    echo "make test: all passed in $((SECONDS - started)) s"
else
    echo "make test: FAILED after $((SECONDS - started)) s" >&2
fi
exit $result
