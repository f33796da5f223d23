#!/usr/bin/env bash
# Keeps the install script of a version that is released, as the build made it, in sql/archive: tools/archive.sh VERSION [FOLDER]
# What is there already must be the same; docs/contributing.md has the rules.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/postgres.sh

fail() {
    echo "archive: $*" >&2
    exit 1
}

[ $# -ge 1 ] || fail "which version? tools/archive.sh VERSION"
version=$1
folder=${2:-sql/archive}
own=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
[ "$version" = "$own" ] || fail "Cargo.toml says that this is version $own, not $version"
tree=${PUSHY_PACKAGE:-target/package-dev-$PG_MAJOR}
[ -n "${PUSHY_PACKAGE:-}" ] || tools/build.sh dev
file=pushy--$version.sql
script=$(find "$tree" -name "$file")
[ -n "$script" ] || fail "no $file in $tree"

# Where pgrx read a part, which says nothing to the server and is another line tomorrow.
kept=$(sed -E '/^-- src\/lib\.rs:[0-9]+$/d' "$script")
if [ -e "$folder/$file" ]; then
    [ "$kept" = "$(cat "$folder/$file")" ] || fail "$folder/$file is another script, and an archived one is never changed: give this version another number"
    echo "archive: $file is there already"
    exit
fi
mkdir -p "$folder"
printf '%s\n' "$kept" >"$folder/$file"
(cd "$folder" && sha256sum "$file" >>CHECKSUMS)
# An update script that leads to it was shipped with it.
for update in sql/pushy--*--"$version".sql; do
    [ ! -e "$update" ] || (cd sql && sha256sum "$(basename "$update")") >>"$folder/CHECKSUMS"
done
echo "archive: $folder/$file; commit it with CHECKSUMS"
