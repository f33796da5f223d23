#!/usr/bin/env bash
# Builds for the PostgreSQLs that are not this machine's own, loads that and runs the tests: tools/test_majors.sh MAJORS [pytest's arguments]
# MAJORS is a list such as '16 17 18'. All of them are tried; the last lines say what became of each. It ends with 1 where one
# failed, else with 75 (EX_TEMPFAIL) where one was not tested because it could not be downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cargo.sh
. tools/of_major.sh

read -r -a majors <<<"$1"
shift
summary=()
result=0
NOT_DOWNLOADED=75

# of_major MAJOR ARGUMENTS...: the tests of one.
of_major() {
    local major=$1
    shift
    use_major "$major"
    # What pg_upgrade is tried from.
    tools/majors.sh 15 >/dev/null
    tools/build.sh dev
    target/venv/bin/python -m pytest pg_test -q -n "${PUSHY_TEST_SERVERS:-4}" "$@"
}

# What pg_upgrade is tried from has to be of these sources too: what was built once is built again, but where its tree is gone.
for old in 15 16; do
    if [ -d "target/package-dev-$old" ] || [ -d "/usr/include/postgresql/$old/server" ]; then
        (use_major "$old"; tools/build.sh dev) &
        wait $! || [ $? = $NOT_DOWNLOADED ]
    fi
done

for major in "${majors[@]}"; do
    started=$SECONDS
    echo "== PostgreSQL $major"
    ended=0
    # In a process of its own, where `set -e` holds inside.
    of_major "$major" "$@" &
    wait $! || ended=$?
    case $ended in
        0) summary+=("PostgreSQL $major: passed in $((SECONDS - started)) s") ;;
        $NOT_DOWNLOADED)
            summary+=("PostgreSQL $major: NOT TESTED, because it is not here and could not be downloaded")
            [ $result != 0 ] || result=$NOT_DOWNLOADED
            ;;
        *)
            summary+=("PostgreSQL $major: FAILED after $((SECONDS - started)) s")
            result=1
            ;;
    esac
done
printf '%s\n' "${summary[@]}"
exit $result
