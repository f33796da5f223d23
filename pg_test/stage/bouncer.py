"""PgBouncer in front of a database."""

import contextlib
import os
import shutil
import subprocess
from typing import Iterator

import pytest

from harness import account
from harness.waiting import wait_for

# Not every PATH has the folder where Debian puts it.
PGBOUNCER = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
needed = pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer")


@contextlib.contextmanager
def in_transaction_mode(db, sessions: int = 2) -> Iterator[str]:
    """How to connect: two clients share a server's session between their transactions."""
    folder, port = db.cluster.folder / "bouncer", db.cluster.port + 1
    folder.mkdir()
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(f"""
[databases]
{db.name} = host={db.cluster.folder} port={db.cluster.port} dbname={db.name} user=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = {sessions}
listen_addr =
listen_port = {port}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
""")
    for path in (folder, *folder.iterdir()):
        account.give(path)
    who = account.unprivileged()
    log = open(folder / "log", "w")
    process = subprocess.Popen([PGBOUNCER, folder / "ini"], user=who.pw_uid, group=who.pw_gid, extra_groups=[],
                               stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for("pgbouncer's socket", lambda: (folder / f".s.PGSQL.{port}").exists(), bool)
        yield f"host={folder} port={port} dbname={db.name} user=postgres"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
