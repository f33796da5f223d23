"""Writers of rows and who looks on, for the sections that measure what watches cost."""

import contextlib
import re
import select
import threading
import time
from pathlib import Path

from harness.database import Database


def inserts(db: Database, table: str, clients: int, seconds: int, synchronous_commit: str | None = None) -> float:
    """Transactions a second that insert a row each into a table with columns v and s."""
    return pgbench(db, f"INSERT INTO {table} (v, s) VALUES (1, 'a row');", clients, seconds, synchronous_commit=synchronous_commit)


def pgbench(db: Database, script: str, clients: int, seconds: int, *options, synchronous_commit: str | None = None) -> float:
    """`synchronous_commit`: of its sessions, instead of the server's."""
    path = Path(db.cluster.folder) / "script.sql"
    path.write_text(script + "\n")
    to = f"dbname={db.name}" + (f" options='-c synchronous_commit={synchronous_commit}'" if synchronous_commit else "")
    told = db.cluster.run("pgbench", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres", "-n", "-M", "prepared",
                          "-c", clients, "-j", 2, "-T", seconds, "-f", path, *options, to).stdout
    return float(re.search(r"^tps = ([0-9.]+)", told, re.M).group(1))


def rows_to_copy(db: Database, rows: int) -> Path:
    """A file of the server's with so many rows (v, s)."""
    path = Path(db.cluster.folder) / f"rows_{rows}"
    db.sql(f"COPY (SELECT n, 'row ' || n FROM generate_series(1, {rows}) n) TO '{path}'")
    return path


def copy(db: Database, table: str, path: Path, **settings) -> tuple[float, float]:
    """How long a COPY into a table takes in a new session, in s, and what memory of its own that has then, in MB."""
    with db.connect() as session:
        for name, value in settings.items():
            session.execute(f"SET {name.replace('__', '.')} = {value}")
        began = time.perf_counter()
        session.execute(f"COPY {table} (v, s) FROM '{path}'")
        taken = time.perf_counter() - began
        status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    return taken, int(re.search(r"^RssAnon:\s+(\d+)", status, re.M).group(1)) / 1024


def wait_told(db: Database) -> None:
    """Waits until the relay has nothing left to do of what was written before: it would take the next contestant's CPU."""
    db.wait_until("SELECT emitted IS NOT DISTINCT FROM newest FROM pushy.log", True)


@contextlib.contextmanager
def attentive_listener(db: Database, channel: str):
    """A client that hears all that is said on a channel, with as little work as libpq lets it."""
    session = db.connect()
    session.execute(f"LISTEN {channel}")
    raw, over = session.pgconn, threading.Event()

    def hear() -> None:
        while not over.is_set():
            if select.select([raw.socket], [], [], 0.1)[0]:
                raw.consume_input()
                while raw.notifies():
                    pass
    thread = threading.Thread(target=hear)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        session.close()


@contextlib.contextmanager
def idle_listeners(db: Database, count: int):
    """Sessions that listen to a channel on which nothing is said: NOTIFY wakes them all the same."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(db.connect()).execute("LISTEN something_else")
        yield
