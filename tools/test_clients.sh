#!/usr/bin/env bash
# The clients' own tests, each in its language, on servers with the extension as tools/build.sh dev has built it. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS

result=0
(cd clients/python && PYTHONPATH=src ../../target/venv/bin/python -m pytest -q -p no:cacheprovider -n 2 "$@") || result=$?
if [ $# -gt 0 ]; then
    exit $result
elif ! command -v npm >/dev/null; then
    echo "clients: no Node.js here: the tests of clients/typescript are skipped"
else
    (cd clients/typescript && npm test --silent) || result=$?
fi
[ $result = 0 ] && echo "clients: all passed in $((SECONDS - started)) s"
exit $result
