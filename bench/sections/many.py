"""10,000 queues in a database, and 50 databases with the extension: start (of the server, until a first job has run), claim (a
drain of one queue) and stats (of that queue) once what a start has to look into is done, against one queue in one database.
50 databases cost the server itself some of a start, so there are two more contests: the same databases with all others left out of
`pushy.databases`, and servers that have not loaded Pushy."""

import contextlib
import time

import psycopg

from .. import page_cache
from ..bars import Bar
from ..contestants.pushy import Pushy
from ..progress import check, progress
from ..rounds import middle, ratios, spread
from .processes import wait_calm
from .ugly import pushy_in

TITLE = "Many queues, many databases"
ONE = "one queue, one database"
LEFT_OUT = "the same databases, others left out"
BARE_ONE, BARE_MANY = "without Pushy, one database", "without Pushy, {} databases"
QUERIES = 1000
WHATS = {"up": "start until somebody is let in, ms", "start": "start to first job, ms", "claim": "claim, jobs/s", "stats": f"stats of the queue, ms (of {QUERIES:,} the middle one)"}


def measure(servers, sizes) -> dict:
    queues, databases = sizes.millions(10_000), sizes.few(full=50, short=20)
    jobs = sizes.jobs(100_000)
    seen: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as running:
        def server(**settings):
            return running.enter_context(servers.server(**{"pushy.max_queues": 16_384} | settings))

        wide, deep, bare_deep = f"{queues:,} queues", f"{databases} databases", BARE_MANY.format(databases)
        clusters = {ONE: server(), wide: server(), deep: server(), LEFT_OUT: server(**{"pushy.databases": "many"}),
                    BARE_ONE: server(), bare_deep: server()}
        pushies = {name: pushy_in(cluster, "many") for name, cluster in clusters.items()}
        pushies[wide].db.value("SELECT count(pushy.queue_register('q' || n, 'noop(jsonb)')) FROM generate_series(1, %s) n", queues)
        for name in (deep, LEFT_OUT, bare_deep):
            for number in range(databases - 1):
                clusters[name].database(f"other_{number}").close()
        for name in (BARE_ONE, bare_deep):  # the same files, but nobody for them
            pushies.pop(name).db.sql("ALTER SYSTEM SET shared_preload_libraries = 'plpgsql'")  # '' would be a library of that name
        for number in range(sizes.rounds):
            order = list(clusters.items())
            for name, cluster in order[number % len(order):] + order[:number % len(order)]:
                page_cache.fill()
                cluster.stop()
                figures = one(cluster, pushies[name], jobs) if name in pushies else {"up": started(cluster)}
                for what, figure in figures.items():
                    seen.setdefault(what, {}).setdefault(name, []).append(figure)
                progress(f"  round {number + 1} of {sizes.rounds}: {name}: " + ", ".join(f"{what} {figure:,.4g}" for what, figure in figures.items()))
    return {"rounds": sizes.rounds, "seen": seen}


def one(cluster, pushy: Pushy, jobs: int) -> dict[str, float]:
    began = time.perf_counter()
    up = started(cluster)
    pushy.db.job_wait(pushy.db.value("SELECT pushy.enqueue('noop_batched')"))
    first = (time.perf_counter() - began) * 1000
    wait_calm(cluster)
    return {"up": up, "start": first, "claim": pushy.drain("noop", jobs), "stats": stats(pushy)}


def started(cluster) -> float:
    """Milliseconds until the server lets somebody in."""
    began = time.perf_counter()
    cluster.start(wait=lambda: let_in(cluster))
    return (time.perf_counter() - began) * 1000


def let_in(cluster) -> None:
    """Until the server lets somebody in: pg_ctl looks ten times a second, which is as long as what is measured."""
    began = time.perf_counter()
    while True:
        try:
            return cluster.connect().close()
        except psycopg.OperationalError:
            check(time.perf_counter() - began < 60, "the server did not start")
            time.sleep(0.001)  # the server tells nobody outside when it is up


def stats(pushy) -> float:
    query = "SELECT * FROM pushy.stats WHERE queue = 'noop_batched'"
    pushy.db.rows(query)
    times = []
    for _ in range(QUERIES):
        began = time.perf_counter()
        pushy.db.rows(query)
        times.append((time.perf_counter() - began) * 1000)
    return middle(times)


def tables(data: dict) -> list[str]:
    lines = [f"Median of {data['rounds']} rounds (lowest to highest).", "",
             "| | " + " | ".join(WHATS.values()) + " |", "| --- |" + " ---: |" * len(WHATS)]
    return lines + [f"| {name} | " + " | ".join(cell(data["seen"][what].get(name), ",.2f" if what == "stats" else ",.0f") for what in WHATS) + " |"
                    for name in data["seen"]["up"]]


def cell(seen: list[float] | None, form: str) -> str:
    return spread(seen, form) if seen else ""


def bars(data: dict) -> list[Bar]:
    ups = data["seen"]["up"]
    alone = "".join(f" (the server without Pushy {more(ratios(ups[name], ups[BARE_ONE]))})"
                    for name in ups if name.startswith("without Pushy") and name != BARE_ONE)
    found = []
    for what in ("start", "claim", "stats"):
        by_name = data["seen"][what]
        for name in by_name:
            if name not in (ONE, LEFT_OUT):
                found.append(within(name, what, by_name, ONE, alone if what == "start" and "databases" in name else ""))
                if what == "start" and "databases" in name:
                    found.append(within(name, what, by_name, LEFT_OUT))
    return found


def within(name: str, what: str, by_name: dict[str, list[float]], against: str, remark: str = "") -> Bar:
    times = ratios(by_name[name], by_name[against]) if what != "claim" else ratios(by_name[against], by_name[name])
    return Bar(f"{name}: {what}, against {against}", "within 10 %", more(times) + remark, middle(times) <= 1.1)


def more(times: list[float]) -> str:
    return spread([100 * ratio - 100 for ratio in times], "+.0f") + " %"
