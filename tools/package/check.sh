#!/usr/bin/env bash
# Tries the packages: makes them, twice, reads them, and has the .deb installed, used and purged in a Debian of its own:
# tools/package/check.sh [MAJOR[@SUITE]…]; without an argument it is the PostgreSQL of PG_CONFIG. Each is tried on the Debian that has that
# PostgreSQL, or on SUITE with the PostgreSQL of that one: what was built on an older Debian runs there. As root, with mmdebstrap, lintian, umoci.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/progress.sh
. tools/cargo.sh
. tools/of_major.sh
. tools/package/common.sh

scratch=$(mktemp -d)
trap 'rm -rf --one-file-system "$scratch"' EXIT

# Whoever reads the library, stripped or as `make install` has it, reads nothing of this machine's folders.
nobodys_folders() {
    local library
    for library in $(find "$packaged" "target/package-release-$PG_MAJOR" -name pushy.so); do
        if strings -n 4 "$library" | grep -F -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" -e "$(rustc --print sysroot)" -e "$(tools/majors.sh --folder)" |
            head -n 5 | grep .; then
            echo "$library: has the folders above in it" >&2
            return 1
        fi
    done
}

# The newest symbol of the C library that the extension asks for, against the one that is here.
c_library() {
    local newest
    newest=$(objdump -T "$(find "$packaged" -name pushy.so)" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    echo "$newest is the newest that it asks for; here is $(getconf GNU_LIBC_VERSION)"
    [ "$(printf '%s\n' "${newest#GLIBC_}" "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" | sort -V | tail -n 1)" = \
        "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" ]
}

# Made once more it is the same file.
same_again() {
    local first
    first=$(sha256sum <"$deb")
    tools/package/deb.sh
    [ "$first" = "$(sha256sum <"$deb")" ]
}

image() {
    local file
    file=$(ls $DIST/pushy-"$VERSION"-pg"$PG_MAJOR"-*.oci.tar)
    mkdir "$scratch/oci"
    tar -xf "$file" -C "$scratch/oci"
    umoci unpack --image "$scratch/oci:$VERSION-$PG_MAJOR" "$scratch/bundle"
    (cd "$scratch/bundle/rootfs" && find . -type f | sort)
    cmp "$scratch/bundle/rootfs/lib/pushy.so" "$(find "target/image/$PG_MAJOR" -name pushy.so)"
    rm -rf "$scratch/oci" "$scratch/bundle"
}

# in_debian SUITE HOME: all of it in a mount namespace, which takes its mounts along when it ends. HOME is the suite that has the PostgreSQL.
in_debian() {
    local root=$scratch/$1 mirror sources
    mirror=$(tools/majors.sh --mirror)
    sources=("deb $mirror $1 main")
    [ "$1" = "$2" ] || sources+=("deb $mirror $2 main")
    mmdebstrap --quiet --mode=root --variant=apt --include="postgresql-$PG_MAJOR" --aptopt='Acquire::Check-Valid-Until "false"' \
        --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"' \
        "$1" "$root" "${sources[@]}"
    cp "$deb" "$root/tmp/pushy.deb"
    cp tools/package/in_chroot.sh "$root/tmp/in_chroot.sh"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    unshare --mount --pid --fork sh -c "mount -t proc proc '$root/proc' && mount --rbind /dev '$root/dev' &&
        exec chroot '$root' env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 bash /tmp/in_chroot.sh $PG_MAJOR"
    rm -rf --one-file-system "$root"
}

# check MAJOR[@SUITE]
check() {
    local major=${1%@*} home suite
    use_major "$major"
    deb=$DIST/postgresql-$major-pushy_$VERSION-1_$(dpkg --print-architecture).deb
    packaged=target/deb/postgresql-$major-pushy
    tools/package/deb.sh
    tools/package/image.sh
    step "nobody's folders in the library" nobodys_folders
    step "the C library" c_library
    step "lintian" lintian --allow-root --fail-on=error,warning "$deb"
    step "the same bytes again" same_again
    step "the image" image
    home=$(tools/majors.sh --suite "$major")
    suite=$home
    [[ $1 != *@* ]] || suite=${1#*@}
    if [ -n "$home" ]; then
        step "postgresql-$major-pushy installed, used and purged on $suite" in_debian "$suite" "$home"
    else
        echo "postgresql-$major-pushy: NOT INSTALLED, because no Debian has PostgreSQL $major" >&2
    fi
}

[ "$(id -u)" = 0 ] || fail "a Debian of its own is made by root"
for program in mmdebstrap lintian umoci; do
    command -v $program >/dev/null || fail "no $program here: apt-get install mmdebstrap lintian umoci"
done
[ $# -gt 0 ] || set -- "$(. tools/postgres.sh; echo "$PG_MAJOR")"
for what; do
    # In a process of its own, because what is chosen there stays chosen.
    (check "$what")
done
