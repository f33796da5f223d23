#!/usr/bin/env bash
# Every other supported PostgreSQL, as a tree of its own beside the machine's: tools/majors.sh 16 17 18 makes what is missing, then
# prints the pg_config of each. --folder prints where they lie, --suite MAJOR which Debian has it (16: none), --mirror where those are.
# Nothing of the machine is changed. The trees are made once and kept, for all checkouts.
#   15: the packages of Debian 12 without its later fixes, for pg_upgrade only: what 15.20 dumps has a column option (pg_attver)
#       that 18.6 does not know
#   16: the wheel `pgserver` of PyPI, whose PostgreSQL has no contrib and no PL/Python
#   17: the packages of Debian 13, 18: those of Debian sid, unpacked; their programs are told, by patchelf, to take the
#       libraries of the tree, the C library among them, so that they run on this Debian as they do on theirs.
# It ends with 75 (EX_TEMPFAIL) where one could not be downloaded, which says nothing about Pushy; with 1 where one was and does not run.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/progress.sh

# The server's account has to read them, which it cannot below /root.
if [ "$(id -u)" = 0 ]; then
    MAJORS=${PUSHY_MAJORS:-/var/cache/pushy/majors}
else
    MAJORS=${PUSHY_MAJORS:-${XDG_CACHE_HOME:-$HOME/.cache}/pushy/majors}
fi
PGSERVER=0.1.4
# Counted up when trees are made in another way: those made before are made again.
FORM=1
NOT_DOWNLOADED=75

not_downloaded() {
    echo "PostgreSQL $1 could not be downloaded" >&2
    exit $NOT_DOWNLOADED
}

pg_config_of() {
    case $1 in
        16) echo "$MAJORS/16/pgserver/pginstall/bin/pg_config" ;;
        *) echo "$MAJORS/$1/usr/lib/postgresql/$1/bin/pg_config" ;;
    esac
}

suite_of() {
    case $1 in
        15) echo bookworm ;;
        17) echo trixie ;;
        18) echo sid ;;
    esac
}

# patched FOLDER LIBRARIES [INTERPRETER]: the programs below FOLDER find their libraries in LIBRARIES, wherever they are copied to.
patched() {
    local file
    find "$1" -type f -perm -u+x | while read -r file; do
        if patchelf --print-interpreter "$file" >/dev/null 2>&1; then
            patchelf ${3:+--set-interpreter "$3"} --force-rpath --set-rpath "$2" "$file"
        fi
    done
}

wheel() { # TREE
    local pip=target/venv/bin/pip
    [ -x $pip ] || pip="python3 -m pip"
    # For any Python: nothing but its PostgreSQL is used.
    $pip install --quiet --disable-pip-version-check --no-deps --python-version 3.11 --only-binary :all: --target "$1" "pgserver==$PGSERVER" ||
        not_downloaded 16
    patched "$1/pgserver/pginstall" "$1/pgserver/pginstall/lib:$1/pgserver.libs"
}

# apt for another Debian: its own lists and its own idea of what is installed, which is nothing.
apt_of() { # FOLDER COMMAND...
    local folder=$1
    shift
    apt-get -q -y -o Dir::Etc="$folder/etc" -o Dir::State="$folder/state" -o Dir::State::status="$folder/status" \
        -o Dir::Cache="$folder/cache" -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false \
        -o Acquire::Languages=none "$@"
}

# The mirror that this machine has.
mirror() {
    local found
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -o 'https\?://[^ ]*/debian/\?$' | head -n 1 || true)
    echo "${found:-http://deb.debian.org/debian}"
}

packages() { # TREE MAJOR
    local tree=$1 major=$2 apt deb libraries
    apt=$(mktemp -d)
    trap "rm -rf '$apt'" EXIT
    mkdir -p "$apt/etc/apt.conf.d" "$apt/etc/preferences.d" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$tree"
    touch "$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] $(mirror) $(suite_of "$major") main" \
        >"$apt/etc/sources.list"
    # The headers without what they depend on: a compiler, and the whole of LLVM.
    { apt_of "$apt" update --error-on=any &&
        apt_of "$apt" install --download-only "postgresql-$major" "postgresql-plpython3-$major" &&
        (cd "$apt/cache/archives" && apt_of "$apt" download "postgresql-server-dev-$major" libpq-dev); } || not_downloaded "$major"
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg-deb -x "$deb" "$tree"
    done
    # Before 13 the C library was outside of /usr.
    [ ! -d "$tree/lib" ] || cp -a "$tree/lib/." "$tree/usr/lib/"
    libraries=$tree/usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
    patched "$tree/usr/lib/postgresql/$major" "$libraries:$libraries/systemd" "$(echo "$libraries"/ld-linux-*.so.*)"
}

# make_tree MAJOR: in place, because its programs have its path in them, and marked when it is whole.
make_tree() {
    local tree=$MAJORS/$1
    rm -rf "$tree"
    mkdir -p "$tree"
    if [ "$1" = 16 ]; then wheel "$tree"; else packages "$tree" "$1"; fi
    "$(pg_config_of "$1")" --version
    "$(dirname "$(pg_config_of "$1")")/postgres" --version
    echo "$FORM" >"$tree/made"
}

case ${1:-} in
    --folder) echo "$MAJORS"; exit ;;
    --suite) suite_of "$2"; exit ;;
    --mirror) mirror; exit ;;
esac
mkdir -p "$MAJORS"
exec 9>"$MAJORS/lock"
flock 9
for major in "$@"; do
    if [ "$(cat "$MAJORS/$major/made" 2>/dev/null)" != "$FORM" ]; then
        step "PostgreSQL $major, a tree of its own in $MAJORS" make_tree "$major" >&2
    fi
    pg_config_of "$major"
done
