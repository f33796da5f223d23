# Sourced by the scripts beside it: what the packages are called, and when they were made.

VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
DIST=target/dist
# The same sources give the same bytes: times in the archives are those of the last commit, or of the change log where there is no git.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    exit 1
}

# stage FOLDER: the release build (or the tree PUSHY_PACKAGE) as `make install` lays it, below FOLDER, and the library stripped.
stage() {
    rm -rf "$1"
    DESTDIR=$(realpath -m "$1") tools/install.sh ${PUSHY_PACKAGE:+"$PUSHY_PACKAGE"} >/dev/null
    find "$1" -name pushy.so -exec strip --strip-unneeded {} +
}

# made FILE...: tells, and writes the sums of all that is there.
made() {
    (cd $DIST && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
    ls -sh1 "$@"
}
