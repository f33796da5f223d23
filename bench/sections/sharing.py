"""Batches beside idle executors: latency of jobs of a millisecond, which wait and cost no core, at fixed rates with sixteen executors,
batched and with a commit each in turn; and how fast a full queue drains both ways."""

import time

from .. import page_cache
from ..bars import Bar
from ..progress import progress
from ..rounds import middle, quantile, ratios
from .latency import over
from .rates import delays, load

TITLE = "Batches beside idle executors"
RATES = (500, 1500, 3000)
EXECUTORS = 16
BATCHED, EACH = "batched", "a commit each"

WAITS = """
CREATE FUNCTION waits(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS
    $$DECLARE began jsonb := to_jsonb(extract(epoch FROM clock_timestamp())); BEGIN PERFORM pg_sleep(0.001); RETURN began; END$$;
SELECT pushy.queue_register('waits', 'waits(jsonb)');
CREATE FUNCTION noop(args jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
SELECT pushy.queue_register('noop', 'noop(jsonb)');
"""
SQL = "SELECT pushy.enqueue('waits', jsonb_build_object('n', $1::int))"


def measure(servers, sizes) -> dict:
    seconds = sizes.few(full=10, short=5)
    jobs = sizes.jobs(100_000)
    seen: dict[str, dict[str, list]] = {BATCHED: {}, EACH: {}}
    drained: dict[str, list] = {BATCHED: [], EACH: []}
    with servers.server(pushy__max_executors=str(EXECUTORS), max_worker_processes=str(EXECUTORS + 8)) as cluster:
        db = cluster.database("sharing")
        db.sql(WAITS)
        for number in range(sizes.rounds):
            for rate in RATES:
                for way in (BATCHED, EACH) if number % 2 == 0 else (EACH, BATCHED):
                    db.sql("SELECT pushy.queue_alter('waits', batch => %s)", way == BATCHED)
                    page_cache.fill()
                    ms = latencies(cluster, db, rate, rate * seconds)
                    seen[way].setdefault(str(rate), []).append({f"p{percent}": quantile(ms, percent) for percent in (50, 99)})
                    progress(f"  round {number + 1} of {sizes.rounds}: {way} at {rate}/s: p50 {quantile(ms, 50):.2f} ms")
            for way in (BATCHED, EACH):
                db.sql("SELECT pushy.queue_alter('noop', batch => %s)", way == BATCHED)
                drained[way].append(drain(db, jobs))
    return {"seconds": seconds, "rounds": sizes.rounds, "seen": seen, "drained": drained}


def latencies(cluster, db, rate: int, jobs: int) -> list[float]:
    before = db.value("SELECT coalesce(max(id), 0) FROM pushy.jobs")
    commits = load(cluster, db.name, rate, jobs, SQL)
    assert db.value("CALL pushy.jobs_wait('waits', '2 minutes')")
    starts = db.rows("SELECT (args->>'n')::int, result::float8 * 1e6 FROM pushy.jobs"
                     " WHERE id > %s AND queue = 'waits' AND state = 'completed'", before)
    return delays(commits, starts, jobs)


def drain(db, jobs: int) -> float:
    """Jobs a second of a queue that was full before anybody began."""
    db.sql("SELECT pushy.queue_pause('noop')")
    db.sql("SELECT count(*) FROM pushy.enqueue_many('noop', array_fill('{}'::jsonb, ARRAY[%s]))", jobs)
    began = time.monotonic()
    db.sql("SELECT pushy.queue_resume('noop')")
    assert db.value("CALL pushy.jobs_wait('noop', '5 minutes')")
    return jobs / (time.monotonic() - began)


def tables(data: dict) -> list[str]:
    lines = [f"In ms, median of {data['rounds']} rounds of {data['seconds']} s; {EXECUTORS} executors, jobs that wait for a millisecond.", "",
             "| | jobs/s | p50 | p99 |", "| --- | ---: | ---: | ---: |"]
    for way, by_rate in data["seen"].items():
        for rate, rounds in by_rate.items():
            lines.append(f"| {way} | {int(rate):,} | " + " | ".join(f"{middle([one[what] for one in rounds]):.2f}" for what in ("p50", "p99")) + " |")
    lines += ["", "| a full queue | jobs/s |", "| --- | ---: |"]
    lines += [f"| {way} | {middle(rates):,.0f} |" for way, rates in data["drained"].items()]
    return lines


def bars(data: dict) -> list[Bar]:
    found = []
    for rate in map(str, RATES):
        batched, each = ([one["p50"] for one in data["seen"][way][rate]] for way in (BATCHED, EACH))
        times = ratios(batched, each)
        found.append(Bar(f"p50 to start batched, against a commit each, at {int(rate):,} jobs/s", "no worse",
                         f"{middle(times):.2f} times ({min(times):.2f} to {max(times):.2f}); {over(batched)}", middle(times) <= 1))
    return found
