"""An idle server, its executors lingering: wake-ups (voluntary context switches), transactions, memory of each worker."""

import time

from ..bars import Bar
from ..progress import progress
from .processes import workers
from .ugly import pushy_in

TITLE = "An idle server"
# Seconds in which the launcher's sweep, once a minute, has met the last commits: it belongs to them.
SWEPT = {"full": 130, "short": 70}


def measure(servers, sizes) -> dict:
    seconds = sizes.few(full=240, short=120)
    with servers.server(**{"pushy.executor_linger": "1h", "autovacuum": "off"}) as cluster:
        pushy = pushy_in(cluster, "idle")
        pushy.drain("noop", 1000)
        pushy.db.close()
        progress("  the sweep after the last jobs is let pass")
        time.sleep(sizes.few(**SWEPT))
        before, all_workers = transactions(cluster), workers(cluster)
        wakeups = {worker.pid: worker.wakeups() for worker in all_workers}
        watch_idle(seconds)
        seen = [{"kind": worker.kind, "wakeups": worker.wakeups() - wakeups[worker.pid], "kB": worker.own_kilobytes()} for worker in all_workers]
        return {"seconds": seconds, "workers": seen, "transactions": transactions(cluster) - before}


def watch_idle(seconds: int) -> None:
    """The time that is measured: nothing happens in it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress(f"  idle, {left:.0f} s left")
        time.sleep(min(20, left))


def transactions(cluster) -> int:
    """Of the database, as far as its statistics know."""
    with cluster.connect() as session:
        return session.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'idle'").fetchone()[0]


def tables(data: dict) -> list[str]:
    lines = [f"{data['seconds']} s, autovacuum off; transactions in the database meanwhile: {data['transactions']}.", "",
             "| worker | wake-ups a minute | memory of its own, kB |", "| --- | ---: | ---: |"]
    return lines + [f"| {worker['kind']} | {worker['wakeups'] * 60 / data['seconds']:.1f} | {worker['kB']:,} |" for worker in data["workers"]]


def bars(data: dict) -> list[Bar]:
    most = max(worker["wakeups"] * 60 / data["seconds"] for worker in data["workers"])
    return [Bar("idle: queries", "none", str(data["transactions"]), data["transactions"] == 0),
            Bar("idle: wake-ups of a worker", "at most one a minute", f"{most:.1f} a minute at most", most <= 1)]
