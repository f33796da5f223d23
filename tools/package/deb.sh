#!/usr/bin/env bash
# The package postgresql-MAJOR-pushy, in target/dist: the extension for the PostgreSQL of PG_CONFIG, stripped, in the folders where
# Debian's packages of that major look, wherever the one of PG_CONFIG does. DEBFULLNAME and DEBEMAIL say who maintains it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/postgres.sh
. tools/package/common.sh

command -v dpkg-shlibdeps >/dev/null || fail "no dpkg-shlibdeps here: install dpkg-dev"
package=postgresql-$PG_MAJOR-pushy
version=$VERSION-1
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The Pushy authors} <${DEBEMAIL:-pushy@packages.invalid}>"
tree=target/deb/$package
documents=$tree/usr/share/doc/$package

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
stage "$scratch/stage"
rm -rf "$tree"
mkdir -p "$tree/DEBIAN" "$documents" "$tree/usr/share/lintian/overrides"
library=$tree/usr/lib/postgresql/$PG_MAJOR/lib/pushy.so
find "$scratch/stage" -name pushy.so -exec install -D -m 644 {} "$library" \;
find "$scratch/stage" -path '*/extension/*' -type f -exec install -D -m 644 -t "$tree/usr/share/postgresql/$PG_MAJOR/extension" {} +

cat >"$documents/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pushy
Comment: The licences of the Rust libraries in pushy.so are in THIRD-PARTY.gz beside this file.

Files: *
Copyright: $(sed -n 's/^Copyright (c) //p' LICENSE)
License: Expat

License: Expat
$(sed '1,/^Copyright/d; 1,/^$/d; s/^$/./; s/^/ /' LICENSE)
END
gzip -9n <THIRD-PARTY >"$documents/THIRD-PARTY.gz"
gzip -9n <CHANGELOG.md >"$documents/changelog.gz"
gzip -9n >"$documents/changelog.Debian.gz" <<END
pushy ($version) unstable; urgency=medium

  * What is new is in changelog.gz beside this file.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

cat >"$tree/usr/share/lintian/overrides/$package" <<END
# It is not uploaded to Debian, so there is no bug that asks for it.
$package: initial-upload-closes-no-bugs *
END

# The libraries that it needs, as Debian's packages are called. What only the server has is found when the server loads it.
mkdir "$scratch/debian"
printf 'Source: pushy\n\nPackage: %s\nArchitecture: any\n' "$package" >"$scratch/debian/control"
needs=$(library=$(realpath "$library") && cd "$scratch" && dpkg-shlibdeps -O "$library" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')

cat >"$tree/DEBIAN/control" <<END
Package: $package
Source: pushy
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(find "$tree/usr" -type f -printf '%s\n' | awk '{ k += int(($1 + 1023) / 1024) } END { print k }')
Depends: postgresql-$PG_MAJOR, $needs
Section: database
Priority: optional
Description: queues, jobs and notices that run inside PostgreSQL $PG_MAJOR
 Pushy makes PostgreSQL push instead of being polled: a change in a table
 becomes a notice, a change or a call becomes a job, in the same transaction,
 and a job runs in a background worker of the server within a millisecond of
 the commit.
 .
 It has to be loaded at the server's start: add pushy to
 shared_preload_libraries, restart the server, and call CREATE EXTENSION
 pushy in each database that is to have it.
END
chmod -R u=rwX,go=rX "$tree"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod 644 "$tree/DEBIAN/md5sums"

mkdir -p $DIST
file=$DIST/${package}_${version}_$architecture.deb
dpkg-deb --build --root-owner-group -Zxz "$tree" "$file" >/dev/null
made "$file"
