"""The event log: what a watch with delivery => 'relay' costs its writers, and how soon its notices arrive.

    target/venv/bin/python -m bench.event_log [seconds a measurement]

Needs target/package-release (tools/build.sh release). Contestants of one figure take turns in one server, so that
what else the machine does meets all of them; the median of the rounds counts.
"""

import contextlib
import re
import statistics
import sys
import threading
import time
from pathlib import Path

from .server import Servers

ROUNDS = 3
WRITERS = 32
LISTENERS = 90
COPIED = 1_000_000
PACE = 0.05  # seconds from one notice to the next where each is to find a relay at rest

TABLES = """
    CREATE TABLE plain (id bigserial PRIMARY KEY, v int);
    CREATE TABLE relayed (id bigserial PRIMARY KEY, v int);
    CREATE TABLE notified (id bigserial PRIMARY KEY, v int);
    SELECT pushy.watch('relayed', delivery => 'relay');
    SELECT pushy.watch('notified', delivery => 'notify');
"""


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with Servers() as servers:
        for synchronous in ("on", "off"):
            with servers.server(max_connections="200", synchronous_commit=synchronous) as cluster:
                writers(cluster, synchronous, seconds)
        with servers.server(max_connections="200") as cluster:
            latencies(cluster, seconds)
        with servers.server(pushy__log_max_size="1GB") as cluster:
            copies(cluster)


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


# -- writers -------------------------------------------------------------------------------------------------------

def writers(cluster, synchronous: str, seconds: int) -> None:
    db = cluster.database()
    db.sql(TABLES)
    db.sql("SELECT pushy.notify('warm', '', delivery => 'relay')")
    rates = interleaved(cluster, db, ["plain", "relayed", "notified"], seconds)
    compare(f"{WRITERS} writers, synchronous_commit {synchronous}", rates)
    with listening(db, ["elsewhere"] * LISTENERS):
        rates = interleaved(cluster, db, ["plain", "relayed"], seconds)
        compare(f"the same, {LISTENERS} idle LISTENers", rates)
    held = db.connect(autocommit=False)
    held.execute("SELECT pg_current_xact_id(), pushy.notify('held', '', delivery => 'relay')")
    rates = interleaved(cluster, db, ["plain", "relayed"], seconds)
    compare("the same, a transaction held open that has written to the log", rates)
    row("  size of the log then", f"{db.value('SELECT bytes FROM pushy.log') >> 20} MB")
    held.rollback()


def interleaved(cluster, db, tables: list[str], seconds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {table: [] for table in tables}
    for turn in range(ROUNDS):
        for table in tables if turn % 2 == 0 else reversed(tables):
            rates[table].append(rate(cluster, db, f"INSERT INTO {table} (v) VALUES (1);", seconds))
            db.sql(f"TRUNCATE {table}")
    return rates


def rate(cluster, db, script: str, seconds: int, *options) -> float:
    path = Path(cluster.folder) / "script.sql"
    path.write_text(script + "\n")
    path.chmod(0o644)
    told = cluster.run("pgbench", "-n", "-M", "prepared", "-h", cluster.folder, "-p", cluster.port, "-U", "postgres",
                       "-c", WRITERS, "-j", 2, "-T", seconds, "-f", path, *options, db.name)
    return float(re.search(r"^tps = ([\d.]+)", told.stdout, re.M).group(1))


def compare(what: str, rates: dict[str, list[float]]) -> None:
    median = {table: statistics.median(found) for table, found in rates.items()}
    # Each round's own ratio: what disturbs the machine disturbs neighbours alike.
    for table in list(rates)[1:]:
        shares = [one / plain for one, plain in zip(rates[table], rates["plain"])]
        row(f"{what}: {table}", f"{median[table]:,.0f} of {median['plain']:,.0f} inserts/s, "
                                f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})")


@contextlib.contextmanager
def listening(db, channels: list[str]):
    sessions = [db.connect() for _ in channels]
    for session, channel in zip(sessions, channels):
        session.execute(f"LISTEN {channel}")
    yield
    for session in sessions:
        session.close()


# -- latency -------------------------------------------------------------------------------------------------------

STAMPED = "SELECT pushy.notify('{channel}', extract(epoch FROM clock_timestamp())::text, delivery => 'relay')"


def latencies(cluster, seconds: int) -> None:
    db = cluster.database()
    db.sql(TABLES)
    for synchronous in ("off", "on"):
        writer = db.connect()
        writer.execute(f"SET synchronous_commit = {synchronous}")
        heard = Heard(db, "quiet")
        for _ in range(60):
            writer.execute(STAMPED.format(channel="quiet"))
            time.sleep(PACE)
        row(f"commit to LISTENer, 20 a second, synchronous_commit {synchronous}", heard.end())
    db.sql("SELECT pushy.subscription_create('s', '{read}')")
    for synchronous in ("off", "on"):
        writer.execute(f"SET synchronous_commit = {synchronous}")
        row(f"commit to subscription_read, synchronous_commit {synchronous}", shown(read(db, writer)))
    for many in (1_000, 5_000):
        heard = Heard(db, "busy")
        achieved = rate(cluster, db, STAMPED.format(channel="busy") + ";", seconds, "-R", many)
        row(f"commit to LISTENer, {achieved:,.0f} a second (of {many:,})", heard.end())


def read(db, writer) -> list[float]:
    taken: list[float] = []
    reader = db.connect()
    for _ in range(60):
        def wait() -> None:
            reader.execute("CALL pushy.subscription_wait('s', '5 s')")
            found = reader.execute("SELECT payload, cursor FROM pushy.subscription_read('s')").fetchone()
            taken.append(time.time() - float(found[0]))
            reader.execute("SELECT pushy.subscription_ack('s', %s)", (found[1],))
        waiting = threading.Thread(target=wait)
        waiting.start()
        db.wait_until("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s", params=(reader.info.backend_pid,))
        writer.execute(STAMPED.format(channel="read"))
        waiting.join()
    return taken


class Heard:
    """Listens in a thread of its own, and takes the time of what it hears, until it hears END."""

    END = "end"

    def __init__(self, db, channel: str):
        self.db, self.channel = db, channel
        self.session = db.connect()
        self.session.execute(f"LISTEN {channel}")
        self.taken: list[float] = []
        self.thread = threading.Thread(target=self._hear)
        self.thread.start()

    def _hear(self) -> None:
        for notice in self.session.notifies():
            if notice.payload == self.END:
                return
            self.taken.append(time.time() - float(notice.payload))

    def end(self) -> str:
        """What was notified before is heard before."""
        self.db.sql("SELECT pushy.notify(%s, %s, delivery => 'relay')", self.channel, self.END)
        self.thread.join()
        return shown(self.taken)


def shown(taken: list[float]) -> str:
    cuts = statistics.quantiles(taken, n=100)
    return f"p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms ({len(taken)} notices)"


# -- COPY ----------------------------------------------------------------------------------------------------------

def copies(cluster) -> None:
    db = cluster.database()
    db.sql(TABLES)
    source = Path(cluster.folder) / "rows.csv"
    source.write_text("".join(f"{n}\n" for n in range(COPIED)))
    source.chmod(0o644)
    taken: dict[str, list[float]] = {"plain": [], "relayed": []}
    most = 0
    for turn in range(2):
        for table in taken if turn == 0 else reversed(taken):
            session = db.connect()
            started = time.monotonic()
            session.execute(f"COPY {table} (v) FROM '{source}'")
            taken[table].append(time.monotonic() - started)
            if table == "relayed":
                status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
                private = re.search(r"^RssAnon:\s+(\d+)", status, re.M)
                most = max(most, int(private.group(1)))
            session.close()
            db.sql(f"TRUNCATE {table}")
    plain, relayed = (min(taken[table]) for table in ("plain", "relayed"))
    row(f"COPY of {COPIED:,} rows", f"{relayed / COPIED * 1e6:.2f} µs a row, plain {plain / COPIED * 1e6:.2f}: "
                                    f"{relayed / plain:.2f} times; the backend's own memory {most >> 10} MB at its end")


if __name__ == "__main__":
    main()
