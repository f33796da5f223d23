"""10,000 queues in a database, and 50 databases with the extension: start (of the server, until a first job has run), claim (a
drain of one queue) and stats (of that queue) once what a start has to look into is done, against one queue in one database.
50 databases cost the server itself some of a start: they are held against the same with all others left out of `pushy.databases`."""

import time

import psycopg

from ..bars import Bar
from ..progress import check, progress
from ..rounds import middle, ratios, spread
from .processes import wait_calm
from .ugly import pushy_in

TITLE = "Many queues, many databases"
ONE = "one queue, one database"
LEFT_OUT = "the same databases, others left out"
QUERIES = 200
WHATS = {"up": "start until somebody is let in, ms", "start": "start to first job, ms", "claim": "claim, jobs/s", "stats": "stats of the queue, ms"}


def measure(servers, sizes) -> dict:
    queues, databases = sizes.millions(10_000), sizes.few(full=50, short=20)
    jobs = sizes.jobs(100_000)
    seen: dict[str, dict[str, list[float]]] = {}
    with servers.server(**{"pushy.max_queues": 16_384}) as one, servers.server(**{"pushy.max_queues": 16_384}) as wide, \
            servers.server(**{"pushy.max_queues": 16_384}) as deep, \
            servers.server(**{"pushy.max_queues": 16_384, "pushy.databases": "many"}) as alone:
        clusters = {ONE: one, f"{queues:,} queues": wide, f"{databases} databases": deep, LEFT_OUT: alone}
        pushies = {name: pushy_in(cluster, "many") for name, cluster in clusters.items()}
        pushies[f"{queues:,} queues"].db.value("SELECT count(pushy.queue_register('q' || n, 'noop(jsonb)')) FROM generate_series(1, %s) n", queues)
        for cluster in (deep, alone):
            for number in range(databases - 1):
                cluster.database(f"other_{number}").close()
        for number in range(sizes.rounds):
            order = list(clusters.items())
            for name, cluster in order[number % len(order):] + order[:number % len(order)]:
                up, first = start(cluster, pushies[name])
                wait_calm(cluster)
                figures = {"up": up, "start": first, "claim": pushies[name].drain("noop", jobs), "stats": stats(pushies[name])}
                for what, figure in figures.items():
                    seen.setdefault(what, {}).setdefault(name, []).append(figure)
                progress(f"  round {number + 1} of {sizes.rounds}: {name}: " + ", ".join(f"{what} {figure:,.4g}" for what, figure in figures.items()))
    return {"rounds": sizes.rounds, "seen": seen}


def start(cluster, pushy) -> tuple[float, float]:
    """Milliseconds until the server lets somebody in, and until a job has run."""
    cluster.stop()
    began = time.perf_counter()
    cluster.start(wait=lambda: let_in(cluster))
    up = time.perf_counter()
    job = pushy.db.value("SELECT pushy.enqueue('noop_batched')")
    pushy.db.job_wait(job)
    return (up - began) * 1000, (time.perf_counter() - began) * 1000


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
    began = time.perf_counter()
    for _ in range(QUERIES):
        pushy.db.rows(query)
    return (time.perf_counter() - began) * 1000 / QUERIES


def tables(data: dict) -> list[str]:
    names = list(data["seen"]["start"])
    lines = [f"Median of {data['rounds']} rounds (lowest to highest).", "",
             "| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    return lines + [f"| {label} | " + " | ".join(spread(data["seen"][what][name], ",.2f" if what == "stats" else ",.0f") for name in names) + " |"
                    for what, label in WHATS.items()]


def bars(data: dict) -> list[Bar]:
    found = []
    for what, by_name in data["seen"].items():
        for name, seen in by_name.items():
            if name not in (ONE, LEFT_OUT) and what != "up":
                against = LEFT_OUT if "databases" in name else ONE
                base = by_name[against]
                times = ratios(seen, base) if what != "claim" else ratios(base, seen)
                found.append(Bar(f"{name}: {what}, against {against}", "within 10 %", spread([100 * ratio - 100 for ratio in times], "+.0f") + " %",
                                 middle(times) <= 1.1))
    return found
