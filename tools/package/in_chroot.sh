#!/usr/bin/env bash
# Inside a fresh Debian with PostgreSQL and /tmp/pushy.deb: installs it, uses it, installs it over a running server, purges it.
set -euo pipefail
major=$1

files() {
    find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \
        -o -path /var/lib/postgresql -o -path /run -o -path /etc/postgresql \) -prune -o -print | sort
}
sql() { runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
works() {
    local said
    said=$(sql shop <<<"SELECT pushy.enqueue('q') AS job \\gset
        SELECT state, result FROM pushy.job_wait(:job)")
    [ "$said" = "completed|7" ] || { echo "a job ended as $said" >&2; exit 1; }
}

files >/tmp/before
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends /tmp/pushy.deb
cat /etc/debian_version
[ -e "/etc/postgresql/$major/main" ] || pg_createcluster "$major" main
echo "shared_preload_libraries = 'pushy'" >"/etc/postgresql/$major/main/conf.d/pushy.conf"
pg_ctlcluster "$major" main start
sql -c "SELECT version()" -c "CREATE DATABASE shop"
sql shop -c "CREATE EXTENSION pushy" -c "CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT 7'" -c "SELECT pushy.queue_register('q', 'work()')"
works
started=$(sql -c "SELECT pg_postmaster_start_time()")
apt-get install -y -q --reinstall /tmp/pushy.deb
works
sql -c "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type LIKE 'pushy%'" >/dev/null
works
[ "$started" = "$(sql -c "SELECT pg_postmaster_start_time()")" ]
sql -c "DROP DATABASE shop WITH (FORCE)"
pg_ctlcluster "$major" main stop
rm "/etc/postgresql/$major/main/conf.d/pushy.conf"
apt-get purge -y -q "postgresql-$major-pushy"
pg_ctlcluster "$major" main start
pg_ctlcluster "$major" main stop
files >/tmp/after
diff /tmp/before /tmp/after
