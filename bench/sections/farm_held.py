"""1,000,000 jobs leased and settled by workers outside, while a transaction is held open, and in turn on a server without one."""

import contextlib
import time

from ..bars import Bar
from ..progress import progress
from ..rounds import middle, ratios, spread

TITLE = "Leases beside an old transaction"
BATCH = 1000
HELD, CONTROL = "held open", "not held open"
FILL = "SELECT count(*) FROM pushy.enqueue_many('farm', (SELECT array_agg('{}'::jsonb) FROM generate_series(1, %s)))"
SETTLE = """
SELECT pushy.jobs_settle(jsonb_agg(jsonb_build_object('job_id', c.job_id, 'token', c.token, 'outcome', 'complete')))
  FROM jsonb_to_recordset(%s) AS c (job_id bigint, token uuid)"""


def measure(servers, sizes) -> dict:
    step, steps = sizes.millions(100_000), 10
    series: dict[str, list[list[float]]] = {HELD: [], CONTROL: []}
    for number in range(sizes.few(full=3, short=1)):
        with servers.server() as with_it, servers.server() as without, contextlib.ExitStack() as open_:
            shops = {}
            for name, cluster in ((HELD, with_it), (CONTROL, without)):
                db = shops[name] = cluster.database("farm_held")
                db.sql("SELECT pushy.queue_register('farm', keep_completed => '0', concurrency => 10000)")
                series[name].append([])
            old = open_.enter_context(shops[HELD].connect(autocommit=False))
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
            for turn in range(steps):
                for name, db in shops.items():
                    series[name][-1].append(leased_and_settled(db, step))
                progress(f"  round {number + 1}, {turn + 1} of {steps}: " + ", ".join(f"{name} {seen[-1][-1]:,.0f}" for name, seen in series.items()) + " jobs/s")
    return {"step": step, "steps": steps, "series": series}


def leased_and_settled(db, jobs: int) -> float:
    """As a worker does it: a claim is a transaction, and its settlement another."""
    for first in range(0, jobs, 10_000):
        db.value(FILL, min(10_000, jobs - first))
    began, left = time.perf_counter(), jobs
    while left > 0:
        claimed = db.value("SELECT jsonb_agg(jsonb_build_object('job_id', job_id, 'token', token))::text FROM pushy.job_claim('farm', %s)", BATCH)
        if claimed is None:
            raise RuntimeError(f"{left} jobs are left, and none can be claimed")
        left -= db.value(SETTLE, claimed)
    return jobs / (time.perf_counter() - began)


def tables(data: dict) -> list[str]:
    return [f"Jobs leased and settled a second by one session, {BATCH:,} at a time: {data['steps']} times {data['step']:,}.", "",
            "| | the first | the last | last to first |", "| --- | ---: | ---: | ---: |",
            *(f"| a transaction {name} | {spread([one[0] for one in rounds])} | {spread([one[-1] for one in rounds])} | "
              f"{spread([100 * one[-1] / one[0] for one in rounds], '.0f')} % |" for name, rounds in data["series"].items())]


def bars(data: dict) -> list[Bar]:
    def last_to_first(name: str) -> list[float]:
        return ratios(*([one[at] for one in data["series"][name]] for at in (-1, 0)))

    what = f"{data['step'] * data['steps']:,} jobs leased and settled beside a transaction held open, the last {data['step']:,} to the first"
    held, control = last_to_first(HELD), last_to_first(CONTROL)
    return [Bar(name, "at least 85 %", spread([100 * ratio for ratio in seen], ".0f") + " %", middle(seen) >= 0.85)
            for name, seen in ((what, held), ("the same, against a server without it", ratios(held, control)))]
