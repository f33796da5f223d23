"""A Rust program on tokio-postgres: commit, rollback, savepoints, two-phase, concurrent sessions."""

import subprocess

from stage.rust import build


def test_the_scenarios_of_a_tokio_postgres_client_pass(db):
    done = subprocess.run([build("pushy-rust-client"), db.dsn()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{db.cluster.log.tail()}"
