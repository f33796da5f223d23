"""Claims a second of sessions that wait, claim one job and complete it, each in a statement: 256 of them against 16."""

import subprocess
import time

from ..bars import Bar
from ..rounds import interleave, middle, ratios, spread

TITLE = "Many workers outside that wait"
FEW, MANY = 16, 256
LOOK = 0.005
SCRIPT = """
CALL pushy.job_claim_wait('farm', '1 minute')
\\gset
SELECT (SELECT count(pushy.job_complete(c.job_id, c.token)) FROM pushy.job_claim('farm') c) AS done;
"""


def measure(servers, sizes) -> dict:
    jobs = sizes.jobs(40_000)
    with servers.server(max_connections=MANY + 50) as cluster:
        db = cluster.database("farm_waiting")
        db.sql("SELECT pushy.queue_register('farm')")
        script = cluster.folder / "farm.sql"
        script.write_text(SCRIPT)
        rates = interleave({f"{clients} workers": lambda clients=clients: drain(db, script, clients, jobs) for clients in (FEW, MANY)}, sizes.rounds, "claims/s")
    return {"rates": rates, "rounds": sizes.rounds, "jobs": jobs}


def drain(db, script, clients: int, jobs: int) -> float:
    """All wait at a paused queue; the clock runs from its resume until all is done."""
    db.sql("SELECT pushy.queue_pause('farm')")
    db.value("SELECT count(*) FROM pushy.enqueue_many('farm', (SELECT array_agg('{}'::jsonb) FROM generate_series(1, %s)))", jobs)
    before = db.value("SELECT completed FROM pushy.stats WHERE queue = 'farm'")
    cluster = db.cluster
    pgbench = subprocess.Popen([cluster.installation.program("pgbench"), "-n", "-c", str(clients), "-j", "2", "-T", "600", "-M", "prepared", "-f", script,
                                "-h", cluster.folder, "-p", str(cluster.port), "-U", "postgres", db.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'Extension'", clients)
        began = time.perf_counter()
        db.sql("SELECT pushy.queue_resume('farm')")
        while db.value("SELECT completed FROM pushy.stats WHERE queue = 'farm'") < before + jobs:
            if pgbench.poll() is not None:
                raise RuntimeError("pgbench ended before the jobs did")
            time.sleep(LOOK)
        return jobs / (time.perf_counter() - began)
    finally:
        pgbench.kill()
        pgbench.wait()
        # Who waits does not see that its client is gone.
        db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbench'")
        db.wait_until("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbench'", 0)


def tables(data: dict) -> list[str]:
    return [f"Jobs claimed and completed a second, one at a time, {data['jobs']:,} jobs; median of {data['rounds']} rounds (lowest to highest).", "",
            "| | jobs a second |", "| --- | ---: |", *(f"| {name} | {spread(seen)} |" for name, seen in data["rates"].items())]


def bars(data: dict) -> list[Bar]:
    few, many = data["rates"].values()
    seen = ratios(many, few)
    return [Bar(f"claims a second with {MANY} workers that wait, against {FEW}", "at least 90 %", spread([100 * ratio for ratio in seen], ".0f") + " %", middle(seen) >= 0.9)]
