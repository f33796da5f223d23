"""From the client's clock before COMMIT to the handler's first clock: one job at a time on an idle server.

Pushy's handler reads clock_timestamp(); graphile-worker's reads Node's clock, which spares it a round trip. The client commits
with synchronous_commit = off, and on in one row, where its own flush counts too."""

import json
import time

from harness.cluster import Cluster
from harness.database import Database

from .. import page_cache
from ..bars import Bar
from ..contestants.graphile_worker import GraphileWorker
from ..contestants.program import Program
from ..progress import progress
from ..rounds import middle, quantile, ratios

TITLE = "Latency, one job at a time"
PUSHY, PUSHY_ON, PUSHY_COLD = "Pushy", "Pushy, client's synchronous_commit on", "Pushy, no executor running"
GRAPHILE = "graphile-worker, no local queue"

STARTED = """
CREATE FUNCTION started(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS
    $$BEGIN RETURN to_jsonb(extract(epoch FROM clock_timestamp())); END$$;
SELECT pushy.queue_register('latency', 'started(jsonb)');
"""


def measure(servers, sizes) -> dict:
    samples = sizes.few(full=500, short=200)
    graphile = GraphileWorker(local_queue=False)
    seen: dict[str, list[list[float]]] = {PUSHY: [], PUSHY_ON: [], PUSHY_COLD: []}
    with servers.server() as cluster:
        db = cluster.database("latency")
        db.sql(STARTED)
        if graphile.missing() is None:
            seen[GRAPHILE] = []
            graphile.prepare(cluster)
            node = cluster.database("latency_node", extension=False, options=f"TEMPLATE {graphile.key}_template")
        for number in range(sizes.rounds):
            page_cache.fill()
            seen[PUSHY].append([pushy(db, "off") for _ in range(samples)])
            seen[PUSHY_ON].append([pushy(db, "on") for _ in range(samples)])
            if GRAPHILE in seen:
                seen[GRAPHILE].append(through_graphile(graphile, node, samples))
            progress(f"  round {number + 1} of {sizes.rounds}: " +
                     ", ".join(f"{name} p50 {quantile(rounds[-1], 50):.3f} ms" for name, rounds in seen.items() if rounds))
        seen[PUSHY_COLD].append(cold(cluster, db, samples))
    return {"samples": samples, "ms": {name: [[round(ms, 4) for ms in one] for one in rounds] for name, rounds in seen.items()}}


def pushy(db: Database, synchronous_commit: str) -> float:
    """One job's latency, in ms."""
    session = db.main
    session.execute("BEGIN")
    session.execute(f"SET LOCAL synchronous_commit = {synchronous_commit}")
    job = session.execute("SELECT pushy.enqueue('latency')").fetchone()[0]
    committed = time.time()
    session.execute("COMMIT")
    return (float(db.job_wait(job)["result"]) - committed) * 1000


def cold(cluster: Cluster, db: Database, samples: int) -> list[float]:
    cluster.configure(pushy__executor_linger="0").restart()
    seen = []
    for n in range(samples):
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pushy executor%'", 0)
        seen.append(pushy(db, "off"))
        progress(f"  no executor running: {n + 1} of {samples}: {seen[-1]:.1f} ms")
    return seen


def through_graphile(graphile: GraphileWorker, db: Database, samples: int) -> list[float]:
    """A job is waited for until it is over in the database, as `job_wait` does for Pushy."""
    commits = []
    with worker(graphile, db, tells=True) as program:
        session = db.main
        for n in range(samples):
            session.execute("BEGIN")
            session.execute("SET LOCAL synchronous_commit = off")
            session.execute("SELECT graphile_worker.add_job('latency', json_build_object('n', %s::int))", (n,))
            commits.append(time.time())
            session.execute("COMMIT")
            program.expect("completed")
        program.tell("stop")
        starts = json.loads(program.after("starts "))
    return [microseconds / 1000 - commits[n] * 1000 for n, microseconds in starts]


def worker(graphile: GraphileWorker, db: Database, tells: bool = False) -> Program:
    """Its worker, listening; whether it `tells` of each job that is completed."""
    program = graphile.program(db, "latency", 0, tells=tells)
    program.expect("ready")
    program.tell("go")
    program.expect("listening")
    return program


def tables(data: dict) -> list[str]:
    lines = [f"In ms; all samples of all rounds, {data['samples']} a round.", "",
             "| | n | p50 | p90 | p99 | max |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, rounds in data["ms"].items():
        seen = [sample for samples in rounds for sample in samples]
        lines.append(f"| {name} | {len(seen)} | {quantile(seen, 50):.3f} | {quantile(seen, 90):.3f} | "
                     f"{quantile(seen, 99):.3f} | {max(seen):.3f} |")
    return lines


def bars(data: dict) -> list[Bar]:
    p50, p99 = ([quantile(seen, percent) for seen in data["ms"][PUSHY]] for percent in (50, 99))
    found = [Bar("commit to handler start, idle server, p50", "under 0.2 ms", over(p50), middle(p50) < 0.2),
             Bar("commit to handler start, idle server, p99", "under 1 ms", over(p99), middle(p99) < 1)]
    cold_p99 = [quantile(seen, 99) for seen in data["ms"][PUSHY_COLD]]
    found.append(Bar("the same with no executor running, p99", "under 30 ms", over(cold_p99), middle(cold_p99) < 30))
    if GRAPHILE in data["ms"]:
        times = ratios([quantile(seen, 50) for seen in data["ms"][GRAPHILE]], p50)
        found.append(Bar("the same against graphile-worker, p50", "20 times less",
                         f"{middle(times):.1f} times ({min(times):.1f} to {max(times):.1f})", middle(times) >= 20))
    return found


def over(rounds: list[float]) -> str:
    return f"{middle(rounds):.3f} ms ({min(rounds):.3f} to {max(rounds):.3f})"
