"""End to end at fixed rates: latency while jobs arrive at so many a second, whatever the server does (an open loop).

The client is a Rust program with 4 sessions, BEGIN, enqueue, COMMIT, synchronous_commit = off."""

import json

from .. import page_cache
from ..bars import Bar
from ..contestants.graphile_worker import GraphileWorker
from ..contestants.program import Program
from ..progress import progress
from ..rounds import middle, quantile
from ..server import environment
from .. import BUILT
from .latency import STARTED, over, worker

TITLE = "Latency at fixed rates"
RATES = (500, 1000, 2000, 4000)
SESSIONS = 4
LOADED = 2000
PUSHY_SQL = "SELECT pushy.enqueue('latency', jsonb_build_object('n', $1::int))"
GRAPHILE_SQL = "SELECT graphile_worker.add_job('latency', json_build_object('n', $1::int))"


def measure(servers, sizes) -> dict:
    seconds = sizes.few(full=10, short=5)
    graphile = [contestant for contestant in (GraphileWorker(local_queue=False), GraphileWorker(local_queue=True))
                if contestant.missing() is None]
    seen: dict[str, dict[str, list]] = {}
    with servers.server() as cluster:
        db = cluster.database("latency")
        db.sql(STARTED)
        for contestant in graphile:
            contestant.prepare(cluster)
        for number in range(sizes.rounds):
            for rate in RATES:
                page_cache.fill()
                runs = {"Pushy": pushy(cluster, db, rate, rate * seconds)}
                runs |= {contestant.name: through(contestant, cluster, rate, rate * seconds) for contestant in graphile}
                for name, ms in runs.items():
                    seen.setdefault(name, {}).setdefault(str(rate), []).append(
                        {f"p{percent}": quantile(ms, percent) for percent in (50, 90, 99)} | {"max": max(ms)})
                    progress(f"  round {number + 1} of {sizes.rounds}: {name} at {rate}/s: p99 {quantile(ms, 99):.2f} ms")
    return {"seconds": seconds, "rounds": sizes.rounds, "seen": seen}


def pushy(cluster, db, rate: int, jobs: int) -> list[float]:
    before = db.value("SELECT coalesce(max(id), 0) FROM pushy.jobs")
    commits = load(cluster, db.name, rate, jobs, PUSHY_SQL)
    assert db.value("CALL pushy.jobs_wait('latency', '2 minutes')")
    starts = db.rows("SELECT (args->>'n')::int, result::float8 * 1e6 FROM pushy.jobs WHERE id > %s AND state = 'completed'", before)
    return delays(commits, starts, jobs)


def through(contestant: GraphileWorker, cluster, rate: int, jobs: int) -> list[float]:
    db = cluster.database(f"{contestant.key}_rate", extension=False, options=f"TEMPLATE {contestant.key}_template")
    try:
        with worker(contestant, db) as program:
            commits = load(cluster, db.name, rate, jobs, GRAPHILE_SQL)
            db.wait_until(f"SELECT {contestant.nothing_left}", deadline=120)
            program.tell("stop")
            return delays(commits, json.loads(program.after("starts ")), jobs)
    finally:
        db.drop()


def load(cluster, database: str, rate: int, jobs: int, sql: str) -> dict[int, float]:
    """When each job was committed, in µs."""
    with Program([BUILT / "client" / "release" / "pushy-bench-client", "load", rate, jobs, SESSIONS, sql],
                 environment(cluster, database)) as program:
        program.expect("ready")
        program.tell("go")
        lines = program.rest()
    return {int(n): float(at) for n, _, at in (line.partition(" ") for line in lines)}


def delays(commits: dict[int, float], starts: list, jobs: int) -> list[float]:
    if len(commits) != jobs or len(starts) != jobs:
        raise RuntimeError(f"{jobs} jobs, {len(commits)} committed, {len(starts)} started")
    return [(at - commits[n]) / 1000 for n, at in starts]


def tables(data: dict) -> list[str]:
    lines = [f"In ms, median of {data['rounds']} rounds of {data['seconds']} s.", "",
             "| | jobs/s | p50 | p90 | p99 | max |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, by_rate in data["seen"].items():
        for rate, rounds in by_rate.items():
            lines.append(f"| {name} | {int(rate):,} | " + " | ".join(
                f"{middle([seen[what] for seen in rounds]):.2f}" for what in ("p50", "p90", "p99", "max")) + " |")
    return lines


def bars(data: dict) -> list[Bar]:
    p99 = [seen["p99"] for seen in data["seen"]["Pushy"][str(LOADED)]]
    return [Bar(f"commit to handler start at {LOADED:,} jobs/s, p99", "under 5 ms", over(p99), middle(p99) < 5)]
