#!/usr/bin/env bash
# The clients as their registries take them, into target/dist: a wheel of clients/python, and an npm package of clients/typescript where there is
# Node.js. Each is read by its language's own checker, and used from where it was unpacked: no file is forgotten in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/package/common.sh

python=$PWD/target/venv/bin/python
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

same_version() {
    [ "$2" = "$VERSION" ] || fail "$1 says version $2, and Cargo.toml $VERSION"
}

wheel() {
    same_version clients/python/pyproject.toml "$(sed -n 's/^version = "\(.*\)"/\1/p' clients/python/pyproject.toml)"
    (cd clients/python && "$python" -m mypy --no-error-summary --cache-dir "$scratch/mypy")
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$scratch" ./clients/python
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target "$scratch/site" "$scratch"/pushy_worker-*.whl
    # As a program types it: the marker for checkers is there, and every name that is offered.
    [ -e "$scratch/site/pushy/py.typed" ] || fail "the wheel has no py.typed"
    PYTHONPATH=$scratch/site "$python" -c 'import pushy; [getattr(pushy, name) for name in pushy.__all__]; pushy.Worker()'
    mv "$scratch"/pushy_worker-*.whl $DIST/
    made $DIST/pushy_worker-"$VERSION"-*.whl
}

npm_package() {
    local client=clients/typescript packed
    same_version $client/package.json "$(sed -n 's/^  "version": "\(.*\)",/\1/p' $client/package.json)"
    packed=$(cd $client && npm pack --silent --pack-destination "$scratch")
    # Nothing but what is built from the sources, and its description.
    if tar -tzf "$scratch/$packed" | grep -vE '^package/(dist/(stream/)?[a-z]+\.(js|d\.ts)|package\.json|README\.md|LICENSE)$'; then
        fail "$packed has the files above in it"
    fi
    [ "$(tar -tzf "$scratch/$packed" | grep -c '\.js$')" = "$(find $client/src -name '*.ts' | wc -l)" ] || fail "$packed lacks files of $client/src"
    mkdir -p "$scratch/app/node_modules"
    ln -s "$PWD"/$client/node_modules/* "$scratch/app/node_modules/"
    tar -xzf "$scratch/$packed" -C "$scratch/app"
    mv "$scratch/app/package" "$scratch/app/node_modules/pushy-worker"
    (cd "$scratch/app" && node --input-type=module -e 'import { Worker } from "pushy-worker"; new Worker()
        import { Stream } from "pushy-worker/stream"; new Stream("https://example.org", { token: () => null, transport: "sse" }); import "pushy-worker/react"')
    # Pages have no package manager: what runs in a browser names nothing but its own files.
    if grep -nE "from '[^.]" $client/dist/stream/*.js $client/dist/backoff.js; then
        fail "the stream of $client needs what is above, which a browser does not have"
    fi
    # The demo's page has the stream as it was built, because make demo works without Node.js.
    for file in backoff.js stream; do
        diff -r --exclude='*.d.ts' $client/dist/$file demo/live/client/$file || fail "demo/live/client is another: 'npm run demo' in $client makes it"
    done
    mv "$scratch/$packed" $DIST/
    made "$DIST/$packed"
}

mkdir -p $DIST
wheel
if command -v npm >/dev/null; then npm_package; else echo "clients: no Node.js here: no npm package"; fi
