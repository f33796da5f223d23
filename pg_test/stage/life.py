"""What the life-cycle suites share: databases that are busy, and workers seen from outside."""

import re
from pathlib import Path

from harness.cluster import Cluster
from harness.database import Database
from harness.waiting import PATIENCE, wait_for

# Long enough for a busy machine, far less than it takes when a worker does not leave by itself.
SOON = f"{int(10 * PATIENCE)}s"

LEDGER = """
    CREATE TABLE ledger (n int, pid int DEFAULT pg_backend_pid());
    CREATE FUNCTION note(args jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ledger VALUES (args::int)'
"""


class ClusterGate:
    """As harness.gate.Gate, but kept from another database, so that this one can be dropped. Superusers' handlers only."""

    # A shared catalog that nobody else needs, but for ACCESS SHARE: the first session of a database, and whoever finds its
    # relation cache's file gone, opens every catalog that has a cache.
    stop = "LOCK TABLE pg_catalog.pg_replication_origin IN ROW SHARE MODE"

    def __init__(self, cluster: Cluster):
        self._keeper = cluster.connect(autocommit=False)
        self._keeper.execute("LOCK TABLE pg_catalog.pg_replication_origin IN EXCLUSIVE MODE")

    def __enter__(self) -> "ClusterGate":
        return self

    def __exit__(self, *exception) -> None:
        self.open()
        self._keeper.close()

    def wait_for_arrival(self, count: int = 1) -> list[int]:
        query = ("SELECT array_agg(pid) FROM pg_locks WHERE locktype = 'relation' AND database = 0 AND NOT granted "
                 "AND relation = 'pg_catalog.pg_replication_origin'::regclass")
        return wait_for(f"{count} at the gate", lambda: self._keeper.execute(query).fetchone()[0],
                        lambda pids: pids is not None and len(pids) >= count)

    def open(self) -> None:
        self._keeper.rollback()


def workers(cluster: Cluster, dbname: str) -> list[str]:
    """The kinds of Pushy's workers in a database."""
    with cluster.connect() as session:
        return [kind for kind, in session.execute(
            "SELECT backend_type FROM pg_stat_activity WHERE datname = %s AND backend_type LIKE 'pushy%%' ORDER BY 1", (dbname,))]


def wait_empty(cluster: Cluster, dbname: str) -> None:
    wait_for(f"no worker in {dbname}", lambda: workers(cluster, dbname), lambda seen: seen == [], evidence=cluster.log.tail)


def run(db: Database, queue: str = "q", count: int = 1) -> None:
    """Enqueues and waits until all is done."""
    ids = [job for job, in db.rows("SELECT pushy.enqueue_many(%s, array_agg(to_jsonb(n))) FROM generate_series(1, %s) n", queue, count)]
    for job in ids:
        assert db.job_wait(job)["state"] == "completed"


def end_executors(db: Database) -> None:
    """Ends the executors of the database once they have nothing to do, so that the next job needs a new one."""
    executors = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'pushy executor'"
    while db.value(f"SELECT count(*) {executors}"):
        db.wait_until(f"SELECT coalesce(bool_and(state = 'idle'), true) {executors}")
        db.sql(f"SELECT pg_terminate_backend(pid, 10000) {executors}")


def wakeups(pid: int) -> int:
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M).group(1))


def settled():
    """Accepts what is the same at twenty looks in a row."""
    seen = []

    def accept(now):
        seen.append(now)
        return len(seen) > 20 and all(look == now for look in seen[-20:])
    return accept
